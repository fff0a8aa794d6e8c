"""A gateway and its upstream in this process, of which every fault is noted: what it logs, what it leaves unhandled, what it sends."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import structlog
import uvloop

from tests.gateway.serving import serving

GUARD_SECONDS = 20.0
T = TypeVar("T")


class _Faults(logging.Handler):
    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self._found = found

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR or record.exc_info:
            self._found.append(logging.Formatter().format(record))


class Upstream:
    """A raw server: `answer` is given all bytes of a connection so far and returns what to write, and whether to end the connection."""

    def __init__(self, answer: Callable[["Connection"], None]) -> None:
        self.answer = answer
        self.connections: set[Connection] = set()

    async def open(self) -> None:
        self._server = await asyncio.get_running_loop().create_server(lambda: Connection(self), "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self._server.close()
        for connection in list(self.connections):
            connection.transport.abort()
        async with asyncio.timeout(GUARD_SECONDS):
            while self.connections:
                await asyncio.sleep(0)


class Connection(asyncio.Protocol):
    """One connection of it."""

    transport: asyncio.Transport

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._upstream.connections.add(self)

    def data_received(self, data: bytes) -> None:
        self.received += data
        self._upstream.answer(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._upstream.connections.discard(self)


class Rig:
    """Gateway and upstream."""

    def __init__(self, runner: asyncio.Runner, port: int, upstream: Upstream, faults: list[str], logged: list[Any]) -> None:
        self._runner = runner
        self.port = port
        self.upstream = upstream
        self.faults = faults
        self._logged = logged

    def run(self, doing: Awaitable[T]) -> T:
        """Return what comes of it. Afterwards the gateway must not have a fault."""

        async def guarded() -> T:
            async with asyncio.timeout(GUARD_SECONDS):
                return await doing

        try:
            found = self._runner.run(guarded())
        except BaseException as error:
            for fault in self._take_faults():
                error.add_note(fault)
            raise
        faults = self._take_faults()
        assert not faults, "\n".join(faults)
        return found

    def _take_faults(self) -> list[str]:
        logged = [str(line) for line in self._logged if line["log_level"] in ("error", "critical") or line.get("exc_info")]
        faults = [*self.faults, *logged]
        self.faults.clear()
        self._logged.clear()
        return faults


@contextlib.contextmanager
def running(
    answer: Callable[[Connection], None], routes: Callable[[str], Sequence[dict[str, Any]]], directory: Path, **settings: Any
) -> Iterator[Rig]:
    """Run both until the block ends; `routes` is given the URL of the upstream."""
    upstream, faults = Upstream(answer), list[str]()
    handler = _Faults(faults)
    logging.getLogger().addHandler(handler)
    with contextlib.ExitStack() as stack:
        stack.callback(logging.getLogger().removeHandler, handler)
        logged = stack.enter_context(structlog.testing.capture_logs())
        runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))

        def note(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            faults.append(f"{context.get('message')}: {context.get('exception')!r}")

        runner.get_loop().set_exception_handler(note)
        runner.run(upstream.open())
        stack.callback(lambda: runner.run(upstream.close()))
        gateway = serving(routes(f"http://127.0.0.1:{upstream.port}"), directory, **settings)
        port = runner.run(gateway.__aenter__())
        stack.callback(lambda: runner.run(gateway.__aexit__(None, None, None)))
        yield Rig(runner, port, upstream, faults, logged)
    assert not faults, "\n".join(faults)
