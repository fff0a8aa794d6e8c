"""Subscribers of the gateway over raw sockets: they read when told to, disconnect anywhere and resume."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Self

from tests.kit.downstream import Answer, Downstream, End
from tests.kit.waiting import GUARD_SECONDS
from tests.shared.reception import Reception

Fields = Sequence[tuple[str, str]]
ACCEPT = ("Accept", "text/event-stream")


class Subscriber:
    """One client, over any number of connections."""

    def __init__(
        self,
        port: int,
        target: str,
        *,
        headers: Fields = (),
        last_event_id: str = "",
        receive_buffer: int | None = None,
        version: str = "1.1",
    ) -> None:
        self.received = Reception(last_event_id)
        self.target = target
        self._port = port
        self._headers = list(headers) if any(name == "Accept" for name, _ in headers) else [ACCEPT, *headers]
        self._receive_buffer = receive_buffer
        self._version = version
        self._downstream: Downstream | None = None
        self._answer: Answer | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.leave()

    @property
    def downstream(self) -> Downstream:
        """Return the connection. Raises AssertionError between two."""
        assert self._downstream is not None
        return self._downstream

    @property
    def answer(self) -> Answer:
        """Return the response, whose body is always empty: it went to `received`."""
        assert self._answer is not None
        return self._answer

    @property
    def end(self) -> End | None:
        """How the response ended, None while it has not."""
        return self.answer.end

    async def ask(self) -> None:
        """Connect, dropping an older connection, and send the request, with the last event ID if there is one."""
        self.leave()
        self.received.open()
        self._downstream = await Downstream(self._port, receive_buffer=self._receive_buffer).__aenter__()
        resuming = [("Last-Event-ID", self.received.last_event_id)] if self.received.last_event_id else []
        await self._downstream.ask(self.target, "GET", [*self._headers, *resuming], version=self._version)

    async def join(self) -> Self:
        """Connect and return when the response's head has come, which must be that of an event stream."""
        await self.ask()
        self._answer = await self.downstream.answer()
        assert self._answer.head.status == 200, self._answer.head
        assert self._answer.head.value("Content-Type") == "text/event-stream", self._answer.head
        return self

    async def refused(self) -> tuple[int, bytes]:
        """Connect and return status and body of an answer other than an event stream."""
        await self.ask()
        self._answer = await self.downstream.answer()
        return self._answer.head.status, await self._answer.to_end(GUARD_SECONDS)

    async def refused_or_joined(self) -> int:
        """Connect and return the status; 200: it has joined."""
        await self.ask()
        self._answer = await self.downstream.answer()
        return self._answer.head.status

    async def read(self) -> list[bytes]:
        """Wait for some bytes and return the blocks that they complete; the response has ended if `end` says so."""
        await self.answer.receive(1, timeout=3600)  # the caller sets the guard
        return self._take_body()

    def _take_body(self) -> list[bytes]:
        """Return the blocks of the bytes read, which may have come with the head."""
        piece = bytes(self.answer.body)
        self.answer.body.clear()
        return self.received.feed(piece)

    async def until(self, fact: Callable[[], bool], timeout: float = GUARD_SECONDS) -> Reception:
        """Read until `fact` holds, and return what was received so far; the response must not end before."""
        try:
            async with asyncio.timeout(timeout):
                self._take_body()
                while not fact():
                    assert self.end is None, f"the response has ended, {self.end}: {self.received}"
                    await self.read()
        except TimeoutError as error:
            raise AssertionError(f"not within {timeout} s: {self.received}") from error
        return self.received

    async def until_number(self, number: int, timeout: float = GUARD_SECONDS) -> Reception:
        """Read until event `number` has come."""
        return await self.until(lambda: number in self.received.numbers[-1:], timeout)

    async def until_gap(self, count: int = 1) -> Reception:
        """Read until `count` gap events have come."""
        return await self.until(lambda: len(self.received.gaps) >= count)

    async def until_end(self, timeout: float = GUARD_SECONDS) -> End:
        """Read to the end of the response, and return how it ended."""
        try:
            async with asyncio.timeout(timeout):
                self._take_body()
                while self.end is None:
                    await self.read()
        except TimeoutError as error:
            raise AssertionError(f"no end within {timeout} s: {self.received}") from error
        assert self.end is not None
        return self.end

    def leave(self, *, reset: bool = False) -> None:
        """Close the connection, if there is one; an unfinished block is lost."""
        if self._downstream is not None:
            if reset:
                self._downstream.reset()
            self._downstream.close()
            self._downstream = None


@contextlib.asynccontextmanager
async def joined(port: int, target: str, count: int) -> AsyncIterator[list[Subscriber]]:
    """Yield `count` subscribers that have joined one after the other."""
    async with contextlib.AsyncExitStack() as stack:
        yield [await (await stack.enter_async_context(Subscriber(port, target))).join() for _ in range(count)]
