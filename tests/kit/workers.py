"""Run a gateway with workers, as processes that a test can inspect and kill one by one."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil

from tests.kit.downstream import Answer, Downstream
from tests.kit.gateway_process import START_SECONDS, GatewayProcess, meter, start_gateway
from tests.kit.stack import environment
from tests.kit.upstream import EVENT_STREAM_HEAD, Asked, Script, ScriptedUpstream, Silence, chunk
from tests.kit.waiting import GUARD_SECONDS

EVENT = b"data: 1\n\n"


def default_script(asked: Asked) -> Script:
    """Return the script: `/stream` is an event and then silence, other paths get a short answer."""
    if asked.target.startswith("/stream"):
        return [EVENT_STREAM_HEAD, chunk(EVENT), Silence()]
    return [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"]


class Crew:
    """A running gateway with workers, numbered from 0."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self.gateway = gateway
        self.port = urlsplit(gateway.url).port or 0

    def pids(self) -> dict[int, int]:
        """Return the process of each worker by its number. A worker that is starting may be missing."""
        found = {}
        for child in psutil.Process(self.gateway.pid).children():
            with contextlib.suppress(psutil.Error, IndexError, ValueError):
                found[json.loads(child.cmdline()[-1])["number"]] = child.pid
        return found

    def kill(self, number: int, by: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to one worker and return its process ID."""
        pid = self.pids()[number]
        os.kill(pid, by)
        return pid

    async def meter(self, name: str, **labels: str) -> float:
        """Return a metric of all workers together."""
        return meter(await self.gateway.metrics(), name, **labels)

    async def meter_of(self, number: int, name: str) -> float:
        """Return a metric of one worker."""
        return meter(await self.gateway.metrics(f"/workers/{number}/metrics"), name)

    async def readiness(self) -> tuple[int, dict[str, str]]:
        async with httpx.AsyncClient(trust_env=False, timeout=GUARD_SECONDS) as http:
            answer = await http.get(f"{self.gateway.admin}/readyz")
        return answer.status_code, answer.json()

    async def until_ready(self) -> None:
        async with asyncio.timeout(START_SECONDS):
            while (await self.readiness())[0] != 200:
                await asyncio.sleep(0.05)


@asynccontextmanager
async def crew(upstream: ScriptedUpstream | None = None, **settings: str) -> AsyncIterator[Crew]:
    """Run a gateway with two workers in front of `upstream` until the block ends."""
    url = {"UPSTREAM": upstream.url} if upstream else {}
    async with start_gateway(**{"WORKERS": "2"} | url | settings) as gateway:
        yield Crew(gateway)


@asynccontextmanager
async def subscribed(port: int, count: int, target: str = "/stream") -> AsyncIterator[list[Answer]]:
    """Open `count` streams, each on its own connection, and read their first event."""
    async with contextlib.AsyncExitStack() as stack:
        downstreams = [await stack.enter_async_context(Downstream(port)) for _ in range(count)]
        for downstream in downstreams:
            await downstream.ask(target)
        answers = [await downstream.answer() for downstream in downstreams]
        for answer in answers:
            await answer.receive(len(EVENT))
        yield answers


@contextmanager
def starting(temporary: Path, **settings: str) -> Iterator["subprocess.Popen[str]"]:
    """Start a gateway with two workers and temporary files in `temporary`, without waiting; kill the parent at the end."""
    environ = environment("gateway", {"PORT": "0", "ADMIN_PORT": "0", "WORKERS": "2"} | settings) | {"TMPDIR": str(temporary)}
    command = [sys.executable, "-m", "gateway"]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as parent:
        try:
            yield parent
        finally:
            parent.kill()


async def children_of(pid: int, count: int) -> list[int]:
    """Wait until a process has `count` child processes, and return them."""
    async with asyncio.timeout(START_SECONDS):
        while len(found := [child.pid for child in psutil.Process(pid).children()]) < count:
            await asyncio.sleep(0.02)
    return found


async def until_ended(pids: Sequence[int]) -> None:
    """Wait until none of these processes runs."""
    async with asyncio.timeout(START_SECONDS):
        while not ended(pids):
            await asyncio.sleep(0.05)


def ended(pids: Sequence[int]) -> bool:
    """Return whether none of these processes runs. A zombie counts as ended."""
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                return False
    return True
