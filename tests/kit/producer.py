"""Producers for tests: in this process on a real socket, or as a process of its own."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import httpx
from fastapi import FastAPI

from eventstream import Event, Parser
from producer.app import create_app
from producer.log.retention import Retention
from producer.log.sqlite_log import SqliteEventLog
from producer.settings import Settings
from producer.web.drain import Drain
from producer.web.meters import Meters
from producer.web.server import Server
from tests.kit.stack import environment, service_command
from tests.kit.waiting import GUARD_SECONDS

NO_RETENTION = Retention()


@dataclass
class Producer:
    """A producer in this process."""

    port: int
    drain: Drain
    server: Server
    http: httpx.AsyncClient
    log: SqliteEventLog

    async def meter(self, name: str) -> float:
        """Return the sum of one metric over its labels."""
        lines = (await self.http.get("/metrics")).text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))

    async def meter_reaches(self, name: str, value: float) -> None:
        async with asyncio.timeout(GUARD_SECONDS):
            while await self.meter(name) != value:
                await asyncio.sleep(0.01)

    async def holds_up_writing(self) -> None:
        """Return when a response waits for its client to read."""
        await self._until(lambda connections: any(connection.flow.write_paused for connection in connections))

    async def gives_up(self) -> None:
        """Return when a connection is being closed because its client has not read for too long."""
        await self._until(lambda connections: any(connection.transport.is_closing() for connection in connections))

    async def has_no_other_connection(self) -> None:
        """Return when only the connection of `http` is left."""
        await self._until(lambda connections: len(connections) <= 1)

    async def _until(self, fact: Callable[[set[Any]], bool]) -> None:
        async with asyncio.timeout(GUARD_SECONDS):
            while not fact(self.server.server_state.connections):
                await asyncio.sleep(0.01)


def app_without_log(settings: Settings) -> FastAPI:
    """Return the app with an event log that has no events and takes none, to describe it or to ask for what is not in the log."""
    log: Any = SimpleNamespace(epoch="closed", last=0, topics={}, watch=lambda announce: None)
    return create_app(settings, Drain(), log, Meters())


@asynccontextmanager
async def serve(settings: Settings, *, drain_seconds: int = 5, retention: Retention = NO_RETENTION) -> AsyncIterator[Producer]:
    """Serve the app on a free port of the loopback interface, in the test's event loop; its log is new, unless `log_dir` is set."""
    with TemporaryDirectory(prefix="producer-") as folder:
        directory = settings.log_dir if "log_dir" in settings.model_fields_set else Path(folder)
        async with await SqliteEventLog.open(directory, retention=retention) as log, _serve(settings, log, drain_seconds) as producer:
            yield producer


@asynccontextmanager
async def _serve(settings: Settings, log: SqliteEventLog, drain_seconds: int) -> AsyncIterator[Producer]:
    drain = Drain()
    app = create_app(settings, drain, log, Meters())
    send_timeout = settings.send_timeout_seconds
    server = Server(app, drain, host="127.0.0.1", port=0, send_timeout_seconds=send_timeout, drain_seconds=drain_seconds)
    serving = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(GUARD_SECONDS):
            while not server.started:
                await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=GUARD_SECONDS) as http:
            yield Producer(port, drain, server, http, log)
    finally:
        server.should_exit = True
        async with asyncio.timeout(drain_seconds + GUARD_SECONDS):
            await serving


class ProducerProcess:
    """`python -m producer` on a free port; its log, line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self._process.pid

    async def log_line(self, event: str) -> dict[str, Any]:
        """Return the next log line about `event`; every line before it must be JSON."""
        assert self._process.stdout is not None
        async with asyncio.timeout(GUARD_SECONDS):
            async for line in self._process.stdout:
                fact: dict[str, Any] = json.loads(line)
                if fact["event"] == event:
                    return fact
        raise AssertionError(f"the log ended without {event!r}")

    def terminate(self, number: signal.Signals = signal.SIGTERM) -> None:
        self._process.send_signal(number)

    async def rest_of_log(self) -> list[dict[str, Any]]:
        assert self._process.stdout is not None
        return [json.loads(line) for line in (await self._process.stdout.read()).splitlines()]

    async def exit_status(self) -> int:
        async with asyncio.timeout(GUARD_SECONDS):
            return await self._process.wait()


@asynccontextmanager
async def start_producer(*, plain: bool = False, **settings: str) -> AsyncIterator[ProducerProcess]:
    """Run `python -m producer` with these settings until the block ends; its log is new and its own, unless LOG_DIR is set."""
    with TemporaryDirectory(prefix="producer-") as folder:
        async with _start_process({"PORT": "0", "DEMO": "false", "LOG_DIR": folder} | settings, plain=plain) as producer:
            yield producer


@asynccontextmanager
async def _start_process(settings: dict[str, str], *, plain: bool) -> AsyncIterator[ProducerProcess]:
    process = await asyncio.create_subprocess_exec(
        *service_command("producer", plain=plain),
        env=environment("producer", settings),
        stdout=asyncio.subprocess.PIPE,
        limit=2**20,
    )
    producer = ProducerProcess(process)
    try:
        producer.port = (await producer.log_line("listening"))["port"]
        yield producer
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def events_of(body: bytes) -> list[Event]:
    """Return the events of a whole event stream, which must end where a block ends."""
    assert body.endswith(b"\n\n")
    return Parser().feed(body)
