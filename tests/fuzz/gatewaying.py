"""Servers in this process that record every fault: logged errors, and unhandled exceptions."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import structlog
import uvloop

from tests.kit.gateway import serving
from tests.kit.waiting import GUARD_SECONDS

T = TypeVar("T")


class _Faults(logging.Handler):
    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self._found = found

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR or record.exc_info:
            self._found.append(logging.Formatter().format(record))


class Upstream:
    """A raw server: `answer` is called with a connection whenever something has come on it."""

    def __init__(self, answer: Callable[["Connection"], None]) -> None:
        self.answer = answer
        self.connections: set[Connection] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.get_running_loop().create_server(lambda: Connection(self), "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
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
    """An event loop with servers in it, and what they get wrong."""

    def __init__(self, runner: asyncio.Runner, stack: contextlib.ExitStack, faults: list[str], logged: list[Any]) -> None:
        self._runner = runner
        self._stack = stack
        self._faults = faults
        self._logged = logged
        self.port = 0
        """The gateway's."""

    def enter(self, opening: AbstractAsyncContextManager[T]) -> T:
        """Return what it opens, until the rig ends."""
        opened = self._runner.run(opening.__aenter__())
        self._stack.callback(lambda: self._runner.run(opening.__aexit__(None, None, None)))
        return opened

    def serve_gateway(self, routes: Sequence[dict[str, Any]], directory: Path, **settings: Any) -> None:
        """Start the gateway."""
        self.port = self.enter(serving(routes, directory, **settings))

    def run(self, doing: Awaitable[T]) -> T:
        """Return what comes of it. Afterwards nothing may have gone wrong in the servers."""

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
        faults = [*self._faults, *logged]
        self._faults.clear()
        self._logged.clear()
        return faults


@contextlib.contextmanager
def running() -> Iterator[Rig]:
    """Run an event loop until the block ends."""
    faults: list[str] = []
    handler = _Faults(faults)
    logging.getLogger().addHandler(handler)
    with contextlib.ExitStack() as stack:
        stack.callback(logging.getLogger().removeHandler, handler)
        logged = stack.enter_context(structlog.testing.capture_logs())
        runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))

        def note(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            faults.append(f"{context.get('message')}: {context.get('exception')!r}")

        runner.get_loop().set_exception_handler(note)
        yield Rig(runner, stack, faults, logged)
    assert not faults, "\n".join(faults)
