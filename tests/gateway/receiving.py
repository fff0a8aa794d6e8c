"""A receiver that records its input, and responses for it from scripted upstreams."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp

from gateway.http.receiver import Source
from gateway.http.upstream import attach, open_session
from gateway.http.upstream_client import UpstreamAnswer
from tests.kit.upstream import ScriptedUpstream, Step
from tests.kit.waiting import GUARD_SECONDS, settle

BROKEN = "attach() refuses a plain response: aiohttp's internals have moved, gateway/http/upstream.py has to follow"


class Recorder:
    """A receiver that keeps its input. It is paused by the test, or by itself after `pause_after` bytes."""

    def __init__(self, pause_after: int | None = None) -> None:
        self.paused = False
        self.upstream: Source | None = None
        self.bytes_out = 0
        self.chunks: list[bytes] = []
        self.ends: list[str] = []
        self._pause_after = pause_after
        self._news = asyncio.Event()

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    def attached(self, source: Source) -> None:
        self.upstream = source

    def feed(self, chunk: bytes) -> None:
        assert not self.ends, "fed after the end"
        self.chunks.append(chunk)
        if self._pause_after is not None and sum(map(len, self.chunks)) >= self._pause_after:
            self.pause()
        self._news.set()

    def upstream_ended(self) -> None:
        self.ends.append("ended")
        self._news.set()

    def upstream_lost(self, reason: str) -> None:
        assert reason
        self.ends.append("lost")
        self._news.set()

    def pause(self) -> None:
        self.paused = True
        assert self.upstream is not None
        self.upstream.pause()

    def resume(self) -> None:
        self.paused, self._pause_after = False, None
        if self.upstream is not None:
            self.upstream.resume()

    async def until(self, fact: Callable[[], bool]) -> None:
        """Wait until `fact` holds, which is checked after each input."""
        async with asyncio.timeout(GUARD_SECONDS):
            while not fact():
                self._news.clear()
                await self._news.wait()

    async def until_over(self) -> str:
        await self.until(lambda: bool(self.ends))
        await settle()
        (end,) = self.ends
        return end


@asynccontextmanager
async def response_to(*script: Step) -> AsyncIterator[tuple[aiohttp.ClientResponse, ScriptedUpstream]]:
    """Send a request with the gateway's client session to an upstream that plays `script`, and yield the response after its head."""
    async with (
        ScriptedUpstream(script) as upstream,
        open_session(keepalive_seconds=4, max_header_bytes=16_384) as session,
        asyncio.timeout(2 * GUARD_SECONDS),
        session.get(upstream.url) as response,
    ):
        yield response, upstream


def attached(response: UpstreamAnswer, receiver: Recorder) -> Recorder:
    assert attach(response, receiver), BROKEN
    return receiver
