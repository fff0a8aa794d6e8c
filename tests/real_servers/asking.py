"""Event streams of one server, requested directly or through the gateway."""

import asyncio
import itertools
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from tests.kit.waiting import GUARD_SECONDS
from tests.real_servers.servers import Server

MODES = ("direct", "shared", "resumable")
PAUSE_SECONDS = 0.01
"""Between two requests for a topic's state."""

_keys = itertools.count(1)


class Stream:
    """An answer that is being read."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self.body = bytearray()
        self._pieces = answer.aiter_raw()

    async def read(self) -> bool:
        """Wait for more of the body; False at its end, as its framing says. Raises TransportError if it is cut."""
        piece = await anext(self._pieces, None)
        self.body += piece or b""
        return piece is not None

    async def to_end(self) -> bytes:
        async with asyncio.timeout(GUARD_SECONDS):
            while await self.read():
                pass
        return bytes(self.body)

    async def until(self, number: int) -> list[int]:
        """Read until the event with this number has arrived and return the numbers of all events so far."""
        async with asyncio.timeout(GUARD_SECONDS):
            while number not in self.numbers():
                assert await self.read(), f"the answer has ended: {self.body[-200:]!r}"
        return self.numbers()

    async def until_cut(self) -> list[int]:
        """Read until the answer is cut, which it must be, and return the numbers of the events."""
        try:
            body = await self.to_end()
        except httpx.TransportError:
            return self.numbers()
        raise AssertionError(f"the answer ended as if it were complete: {body[-200:]!r}")

    def numbers(self) -> list[int]:
        """Return the numbers of the whole events, with which their data begin."""
        return [int(number) for number in re.findall(rb"^data: ?(\d+) x+\r?$", self.body, re.MULTILINE)]


class Topic:
    """A key at a server that no other test uses."""

    def __init__(self, server: Server, gateway_url: str, http: httpx.AsyncClient) -> None:
        self.server = server
        self._gateway_url = gateway_url
        self._http = http
        self._key = f"key-{next(_keys)}"

    @asynccontextmanager
    async def ask(self, path: str, mode: str, method: str = "GET", **headers: str) -> AsyncIterator[Stream]:
        """Request the gateway's route of this mode, or the server itself if `mode` is empty."""
        url = f"{self._gateway_url if mode else self.server.url}/{self.server.name}/{mode or 'direct'}/{path}"
        async with self._http.stream(method, url, headers={"Accept": "text/event-stream"} | headers) as answer:
            yield Stream(answer)

    @asynccontextmanager
    async def open(
        self,
        mode: str,
        count: int,
        burst: int,
        *,
        size: int = 1,
        tick: int = 0,
        close: bool = False,
        last: str = "",
        authorization: str = "",
    ) -> AsyncIterator[Stream]:
        """Open an event stream; on routes of mode resumable by POST, as clients of language models do."""
        path = f"events?key={self._key}&count={count}&burst={burst}&size={size}&tick={tick}{'&close=1' if close else ''}"
        fields = {"Last-Event-ID": last, "Authorization": authorization}
        headers = {name: value for name, value in fields.items() if value}
        async with self.ask(path, mode, "POST" if mode == "resumable" else "GET", **headers) as stream:
            assert stream.answer.status_code == 200, await stream.to_end()
            assert stream.answer.headers["Content-Type"].partition(";")[0] == "text/event-stream"
            yield stream

    async def go(self) -> None:
        """Allow one more event."""
        (await self._http.get(f"{self.server.url}/go?key={self._key}")).raise_for_status()

    async def count(self, name: str) -> int:
        """Return the number of streams that were `opened` or `left`."""
        answer = (await self._http.get(f"{self.server.url}/state?key={self._key}")).raise_for_status()
        return int(answer.json()[name])

    async def until_left(self, count: int) -> float:
        """Wait until the server has noticed that `count` streams were left, and return the seconds that took."""
        begin = time.monotonic()
        async with asyncio.timeout(GUARD_SECONDS):
            while await self.count("left") < count:
                await asyncio.sleep(PAUSE_SECONDS)
        return time.monotonic() - begin
