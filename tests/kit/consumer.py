"""Consumers as processes of their own, and the logs that they write."""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx

from consumer.audit import Audit
from consumer.record import Position, Record
from consumer.segment import list_segments
from tests.kit.stack import QUICK_START, REPOSITORY, clean_environment, service_command
from tests.kit.waiting import GUARD_SECONDS

T = TypeVar("T")
SOURCE = "http://127.0.0.1/"
QUICK = {"CONSUMER_RECONNECT_INITIAL_SECONDS": "0.01", "CONSUMER_PORT": "0"}
QUICK_RETRY = {"consumer.writer.FIRST_RETRY_SECONDS": 0.05}


class ConsumerProcess:
    """`python -m consumer`, its standard output read line by line unless the test does that itself."""

    def __init__(self, process: asyncio.subprocess.Process, log_dir: Path) -> None:
        self.process = process
        self.log_dir = log_dir
        self.facts: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self.http: httpx.AsyncClient
        self._reading: asyncio.Task[None] | None = None

    async def read_line(self) -> bool:
        """Read one line of standard output. Return False at its end."""
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if not line:
            return False
        fact = json.loads(line)
        (self.events if "received_at" in fact else self.facts).append(fact)
        return True

    async def read_on(self) -> None:
        while await self.read_line():
            pass

    def read_in_background(self) -> None:
        self._reading = asyncio.create_task(self.read_on())

    async def says(self, event: str) -> dict[str, Any]:
        """Return the fact of this name, once it was logged."""
        return await eventually(lambda: next((fact for fact in self.facts if fact["event"] == event), None))

    async def is_ready(self) -> tuple[bool, str]:
        response = await self.http.get("/readyz")
        return response.status_code == 200, response.json().get("reason", "")

    async def readiness_becomes(self, ready: bool) -> str:
        """Return the reason, once `/readyz` says `ready`."""
        async with asyncio.timeout(GUARD_SECONDS):
            while (now := await self.is_ready())[0] is not ready:
                await asyncio.sleep(0.02)
        return now[1]

    async def meter(self, name: str) -> float:
        lines = (await self.http.get("/metrics")).text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))

    async def meter_reaches(self, name: str, value: float) -> None:
        async with asyncio.timeout(GUARD_SECONDS):
            while await self.meter(name) < value:
                await asyncio.sleep(0.02)

    async def logs(self, count: int) -> list[dict[str, Any]]:
        """Return the lines of the log, once there are `count`."""
        return await eventually(lambda: lines if len(lines := read_log(self.log_dir)) >= count else None)

    async def stop(self) -> int:
        """End it by SIGTERM, and return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return await self.ended()

    async def kill(self) -> None:
        self.process.kill()
        await self.ended()

    async def ended(self) -> int:
        async with asyncio.timeout(GUARD_SECONDS):
            if self._reading is not None:
                await self._reading
            return await self.process.wait()


@asynccontextmanager
async def consuming(
    log_dir: Path, url: str, *, started: bool = True, plain: bool = False, constants: Mapping[str, float] = QUICK_RETRY, **settings: str
) -> AsyncIterator[ConsumerProcess]:
    """Start a consumer of `url` that logs into `log_dir`, and kill it at the end if it still runs. `started`: wait for its status port."""
    variables = QUICK | {"CONSUMER_SOURCE_URL": url, "CONSUMER_LOG_DIR": str(log_dir)} | settings
    process = await asyncio.create_subprocess_exec(
        *service_command("consumer", constants=constants, plain=plain),
        cwd=REPOSITORY,
        env=clean_environment(**QUICK_START, **variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        limit=2**25,
    )
    consumer = ConsumerProcess(process, log_dir)
    try:
        if started:
            async with asyncio.timeout(GUARD_SECONDS):
                while not (opened := [fact for fact in consumer.facts if fact["event"] == "status port open"]):
                    assert await consumer.read_line(), await process.communicate()
            host, port = opened[0]["address"]
            async with httpx.AsyncClient(base_url=f"http://{host}:{port}", timeout=GUARD_SECONDS, trust_env=False) as consumer.http:
                yield consumer
        else:
            yield consumer
    finally:
        if process.returncode is None:
            process.kill()
        if consumer._reading is not None:
            consumer._reading.cancel()
            await asyncio.gather(consumer._reading, return_exceptions=True)
        await process.communicate()


async def eventually(fact: Callable[[], T | None]) -> T:
    """Return the result of `fact` once it is not None."""
    async with asyncio.timeout(GUARD_SECONDS):
        while (found := fact()) is None:
            await asyncio.sleep(0.05)
    return found


def run_command(*arguments: str | os.PathLike[str]) -> subprocess.CompletedProcess[str]:
    """Run `python -m consumer` with `arguments` to its end."""
    command = service_command("consumer", *map(str, arguments))
    return subprocess.run(command, cwd=REPOSITORY, env=clean_environment(**QUICK_START), capture_output=True, text=True, timeout=60)


def assert_clean(directory: Path) -> None:
    audit = Audit(directory)
    assert [problem for _, _, problems in audit.check() for problem in problems] == []
    assert audit.clean


def read_lines(directory: Path) -> list[bytes]:
    """Return the whole lines of a log, all segments together."""
    return [line for segment in list_segments(directory) for line in segment.lines() if line.endswith(b"\n")]


def read_log(directory: Path) -> list[dict[str, Any]]:
    if not directory.is_dir():
        return []
    return [json.loads(line) for line in read_lines(directory)]


def record(number: int, id: str | None = "", *, data: str = "some data", epoch: str = "e", **fields: Any) -> Record:
    """Return a record whose ID is its number unless the test has another."""
    shown = str(number) if id == "" else id
    return Record("2026-01-02T03:04:05.678901Z", SOURCE, shown, "message", Position(epoch, number), data, **fields)


def lines_of(numbers: Iterable[int], **fields: Any) -> list[bytes]:
    return [record(number, **fields).encode() for number in numbers]


def segment(directory: Path, first: int, content: bytes) -> Path:
    """Write a segment by hand."""
    directory.mkdir(exist_ok=True)
    path = directory / f"events-{first:016}.jsonl"
    path.write_bytes(content)
    return path
