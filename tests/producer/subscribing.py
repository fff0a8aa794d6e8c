"""Subscribers for tests."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from eventstream import Event, Framer, Parser
from tests.kit.producer import Producer
from tests.kit.waiting import GUARD_SECONDS


class Subscriber:
    """Reads one event stream, whole blocks at a time."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self.bytes = b""
        """The bytes received so far."""
        self._parts = answer.aiter_bytes()
        self._framer = Framer()
        self._parser = Parser()
        self._events: list[Event] = []

    async def event(self) -> Event:
        """Return the next event, which must come within the guard time."""
        async with asyncio.timeout(GUARD_SECONDS):
            while not self._events:
                await self._read()
        return self._events.pop(0)

    async def events(self, count: int) -> list[Event]:
        return [await self.event() for _ in range(count)]

    async def until(self, part: bytes) -> bytes:
        """Read until `part` has come, and return all bytes so far."""
        async with asyncio.timeout(GUARD_SECONDS):
            while part not in self.bytes:
                await self._read()
        return self.bytes

    async def rest(self) -> list[Event]:
        """Return all events until the stream ends, which must be at the end of a block or after the `retry` line of a drain."""
        async with asyncio.timeout(GUARD_SECONDS):
            try:
                while True:
                    await self._read()
            except StopAsyncIteration:
                pass
        assert re.search(rb"(\A|\n\n)(:\n)*(retry: \d+\n(:\n)*)*\Z", self.bytes), self.bytes[-200:]
        return self._events

    async def _read(self) -> None:
        part = await anext(self._parts)
        self.bytes += part
        self._events += self._parser.feed(self._framer.feed(part))


@asynccontextmanager
async def subscribe(producer: Producer, path: str, *, last_event_id: str = "", **query: Any) -> AsyncIterator[Subscriber]:
    """Open a stream; a trailing underscore of a query name is removed."""
    headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
    params = {name.rstrip("_"): value for name, value in query.items()}
    async with producer.http.stream("GET", path, params=params, headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        yield Subscriber(answer)
