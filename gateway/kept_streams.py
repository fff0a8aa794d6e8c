"""All kept streams: finds them, ends what nobody wants any more, and brings them into the store."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any

import aiohttp
import structlog
from multidict import CIMultiDict

from .decoding import find_decoder
from .fan_out import Memory
from .headers import apply_rules, end_to_end
from .kept_stream import KeptStream
from .routes import Route
from .stream_store import CUT, RUNNING, TOO_LARGE, StoreError, StreamHead, StreamStore
from .wheel import TimerWheel

log = structlog.get_logger()

STREAMS_PATH = "/streams/"
"""Where a stream is found by its id."""

_UPKEEP_SECONDS = 1.0
_PART_BYTES = 256 * 1024

_Ask = Callable[[], Coroutine[Any, Any, aiohttp.ClientResponse]]
_KeyOf = tuple[str, bytes, str]


class Opening:
    """A stream whose upstream has been asked and may not have answered yet."""

    def __init__(self, head: StreamHead) -> None:
        self.head = head
        self.answer: asyncio.Future[KeptStream | aiohttp.ClientResponse] = asyncio.get_running_loop().create_future()
        """The stream, or the response when it is no event stream: that belongs to the request that opened it. Raises what asking raised."""
        self.task: asyncio.Task[None] | None = None

    def leave(self) -> None:
        """Takes note that the request that opened it has gone. Without an Idempotency-Key nobody can come for what was not answered yet."""
        if not self.answer.done():
            if self.task is not None and not self.head.key:
                self.task.cancel()
            self.answer.add_done_callback(_close_response)
        else:
            _close_response(self.answer)


def _close_response(answer: asyncio.Future[KeptStream | aiohttp.ClientResponse]) -> None:
    """Closes a response that nobody takes."""
    if not answer.cancelled() and answer.exception() is None and isinstance(response := answer.result(), aiohttp.ClientResponse):
        response.close()


class KeptStreams:
    """The streams that run, and those that have ended and are still in memory; the store has the others.

    `memory` counts what they hold. When it is too much, streams that have ended leave memory first; then the largest that runs is ended.
    """

    def __init__(self, store: StreamStore, wheel: TimerWheel, *, max_bytes: int, routes: Callable[[str], Route]) -> None:
        self.memory = Memory(2**62)  # only counts: what is in a running stream cannot give way
        self._store = store
        self._wheel = wheel
        self._max_bytes = max_bytes
        self._routes = routes
        self._streams: dict[str, KeptStream] = {}
        self._keys: dict[_KeyOf, Opening] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._store_failed = False

    def __repr__(self) -> str:
        return f"<KeptStreams in_memory={len(self._streams)} bytes={self.memory.bytes}>"

    @property
    def running(self) -> int:
        """How many run."""
        return sum(stream.state == RUNNING for stream in self._streams.values())

    @contextlib.asynccontextmanager
    async def upkeep(self) -> AsyncIterator[None]:
        """Looks after the streams while the context is open; in the end, what still runs is cut and all of it stored."""
        task = asyncio.create_task(self._keep_up())
        try:
            yield
        finally:
            task.cancel()
            for opening in tuple(self._tasks):
                opening.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)
            for stream in self._streams.values():
                stream.stop(CUT, "the gateway stopped while it ran")
            await self._store_all()
            await self._store.close()

    def open(self, head: StreamHead, route: Route, ask: _Ask) -> Opening:
        """Asks an upstream; what it answers becomes a stream if it is an event stream."""
        opening = Opening(head)
        task = opening.task = asyncio.create_task(self._run(opening, route, ask))
        self._tasks.add(task)
        task.add_done_callback(partial(self._settle, opening))
        if head.key:
            self._keys[head.route, head.credentials, head.key] = opening
        return opening

    async def _run(self, opening: Opening, route: Route, ask: _Ask) -> None:
        upstream = await ask()
        try:
            if upstream.status != 200 or not _is_event_stream(upstream):
                self._forget_key(opening)
                opening.answer.set_result(upstream)
                return
            fields = kept_fields(upstream, opening.head.id, route)
            stream = KeptStream(replace(opening.head, fields=tuple(fields.items())), route, self._wheel, self.memory)
            self._streams[opening.head.id] = stream
            opening.answer.set_result(stream)
        except BaseException:
            upstream.close()
            raise
        try:
            await stream.follow(upstream)
        finally:
            upstream.close()
            stream.stop(CUT, "the gateway stopped while it ran")

    def _settle(self, opening: Opening, task: asyncio.Task[None]) -> None:
        """Tells those who wait for a stream when asking for it has failed."""
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if not opening.answer.done():
            self._forget_key(opening)
            if error is None:
                opening.answer.cancel()
            else:
                opening.answer.set_exception(error)
                opening.answer.exception()  # nobody may be left to look at it
        elif error is not None:
            task.get_loop().call_exception_handler({"message": "following an upstream failed", "exception": error, "task": task})

    def _forget_key(self, opening: Opening) -> None:
        head = opening.head
        if self._keys.get((head.route, head.credentials, head.key)) is opening:
            del self._keys[head.route, head.credentials, head.key]

    async def find(self, id: str) -> KeptStream | str | None:
        """Gives a stream, or why it is gone, or None when it was never known."""
        stream = self._streams.get(id)
        if stream is not None:
            return stream
        try:
            stored = await self._store.load(id)
        except StoreError as error:
            self._report(error)
            return "the store cannot be read now"
        if stored is None:
            return None
        if (stream := self._streams.get(id)) is not None:
            return stream  # somebody else was faster
        if not stored.blocks and stored.state != RUNNING:
            return f"{stored.state}{f': {stored.reason}' if stored.reason else ''}; what it sent is no longer kept"
        stream = self._streams[id] = KeptStream.restore(stored, self._routes(stored.head.route), self._wheel, self.memory)
        return stream

    def find_opening(self, head: StreamHead) -> Opening | None:
        """Gives the stream with the same Idempotency-Key that this process has opened."""
        return self._keys.get((head.route, head.credentials, head.key))

    async def find_stored(self, head: StreamHead) -> KeptStream | None:
        """Gives the stream with the same Idempotency-Key that is only in the store."""
        if self.find_opening(head) is not None:
            return None
        try:
            id = await self._store.find_key(head.route, head.credentials, head.key)
        except StoreError as error:
            self._report(error)
            return None
        found = await self.find(id) if id is not None else None
        return found if isinstance(found, KeptStream) else None

    def find_like(self, head: StreamHead, last_event_id: str) -> KeptStream | None:
        """Gives the newest stream in memory with the same request that has an event with this ID of its upstream's."""
        asked = (head.route, head.target, head.credentials, head.body)
        for stream in reversed(self._streams.values()):
            other = stream.head
            if (other.route, other.target, other.credentials, other.body) == asked and stream.find(last_event_id) is not None:
                return stream
        return None

    async def _keep_up(self) -> None:
        while True:
            await asyncio.sleep(_UPKEEP_SECONDS)
            now = time.monotonic()
            for stream in tuple(self._streams.values()):
                stream.stop_if_orphaned(now)
            await self._store_all()
            self._expire(time.time())
            self._relieve()
            try:
                await self._store.expire(time.time())
            except StoreError as error:
                self._report(error)

    def _expire(self, now: float) -> None:
        """Forgets streams whose time is over."""
        for stream in tuple(self._streams.values()):
            if stream.state != RUNNING and now >= stream.ended_at + stream.route.retain_seconds and not stream.viewers:
                self._drop(stream)

    def _relieve(self) -> None:
        """Brings memory below its limit: first go streams that the store has, then others that have ended, then the largest that runs."""
        if self.memory.bytes <= self._max_bytes:
            return
        ended = [stream for stream in self._streams.values() if stream.state != RUNNING and not stream.viewers]  # the oldest first
        for stream in sorted(ended, key=lambda stream: not stream.end_stored):
            self._drop(stream)
            if self.memory.bytes <= self._max_bytes:
                return
        running = [stream for stream in self._streams.values() if stream.state == RUNNING]
        if running:
            largest = max(running, key=lambda stream: stream.fan_out.history.cost)
            largest.stop(TOO_LARGE, f"all streams together passed {self._max_bytes} bytes, and this was the largest")

    def _drop(self, stream: KeptStream) -> None:
        head = stream.head
        del self._streams[head.id]
        stream.close()
        opening = self._keys.get((head.route, head.credentials, head.key))
        if opening is not None and opening.head.id == head.id:
            del self._keys[head.route, head.credentials, head.key]

    async def _store_all(self) -> None:
        streams = [stream for stream in self._streams.values() if _is_unstored(stream)]
        results = await asyncio.gather(*(self._bring_into_store(stream) for stream in streams), return_exceptions=True)
        failed = next((result for result in results if result is not None), None)
        if isinstance(failed, StoreError):
            self._report(failed)
        elif failed is not None:
            raise failed
        elif self._store_failed and streams:
            self._store_failed = False
            log.info("the store of streams works again")

    async def _bring_into_store(self, stream: KeptStream) -> None:
        store, history, id = self._store, stream.fan_out.history, stream.head.id
        ended = stream.state != RUNNING  # before anything is awaited: what it has now is all of it
        if not stream.in_store:
            await store.create(stream.head)
            stream.in_store = True
        end = history.end
        while stream.stored_to < end:
            parts: list[bytes] = []
            cursor = stream.stored_to
            while cursor < end and sum(map(len, parts)) < _PART_BYTES:
                data, cursor = history.read(cursor, end)
                parts.append(data)
            await store.append(id, b"".join(parts))
            stream.stored_to = cursor
        if ended:
            await store.finish(id, stream.state, stream.reason, stream.ended_at + stream.route.retain_seconds)
            stream.end_stored = True

    def _report(self, error: StoreError) -> None:
        if not self._store_failed:
            self._store_failed = True
            log.error("the store of streams fails, they are kept in memory only", error=str(error))


def _is_unstored(stream: KeptStream) -> bool:
    return not stream.end_stored and (stream.state != RUNNING or stream.stored_to < stream.fan_out.history.end or not stream.in_store)


def kept_fields(upstream: aiohttp.ClientResponse, id: str, route: Route) -> CIMultiDict[str]:
    """Gives the header fields with which everybody gets a stream."""
    fields = end_to_end(upstream.headers)
    for name in ("Set-Cookie", "Content-Length", "Content-Encoding", "Date", "Age"):
        fields.popall(name, None)
    fields.setdefault("Cache-Control", "no-cache, no-transform")
    fields["X-Accel-Buffering"] = "no"
    fields.setdefault("Server", "gateway")
    fields["Stream-Id"] = id
    fields["Location"] = f"{STREAMS_PATH}{id}"
    if "Access-Control-Allow-Origin" in fields:
        fields.add("Access-Control-Expose-Headers", "Stream-Id, Location")
    apply_rules(fields, route.response_headers)
    return fields


def _is_event_stream(upstream: aiohttp.ClientResponse) -> bool:
    coding = upstream.headers.get("Content-Encoding", "").strip().lower()
    if coding not in ("", "identity") and find_decoder(coding) is None:
        return False  # nobody here can tell its blocks
    return upstream.headers.get("Content-Type", "").partition(";")[0].strip().lower() == "text/event-stream"
