"""All kept streams: find them, end those without subscribers, and write them to the store."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from eventstream.decoding import is_readable

from ...access.budget import Budget
from ...http.asking import UpstreamAnswer
from ...http.headers import content_encoding, is_event_stream
from ...policy.refusal import Refusal
from ...policy.routes import Route
from ...streams.sealed import SealedBlocks
from ...streams.wheel import TimerWheel
from ..observer import Observer
from ..spans import end_answered
from .heads import kept_fields
from .kept_stream import KeptStream
from .loading import Found, Loading
from .names import Names
from .opening import Opening
from .opening_index import OpeningIndex
from .relief import relieve
from .store import CUT, RUNNING, StoredStream, StoreError, StreamHead, StreamStore
from .storing import Storing, is_settled

_UPKEEP_SECONDS = 1.0
_LEAST_UPKEEP_SECONDS = 0.05

_Ask = Callable[[Opening], Coroutine[Any, Any, UpstreamAnswer]]


class KeptStreams:
    """All running streams, and ended ones that are still in memory. The store has the others.

    `memory` counts their bytes. Beyond its limit, streams that the store has leave memory. Then the largest running ones of the client that
    holds the most are ended. `open_streams` counts running streams for the clients that opened them, also without subscribers.
    """

    def __init__(
        self,
        store: StreamStore,
        wheel: TimerWheel,
        *,
        max_bytes: int,
        max_bytes_per_client: int,
        open_streams: Budget,
        routes: Callable[[str], Route],
        observer: Observer | None = None,
    ) -> None:
        self._wanted = asyncio.Event()
        self.memory = Budget(max_bytes, max_bytes_per_client, unit="bytes of kept streams", passed=self._wanted.set)
        self._open_streams = open_streams
        self._kept_in = store
        self._storing = Storing(store)
        self._wheel = wheel
        self._routes = routes
        self._streams: dict[str, KeptStream] = {}
        self._observer = observer or Observer()
        self._by_key = OpeningIndex(lambda head: head.key)
        self._by_name = Names(self._observer)
        self._openings: set[Opening] = set()
        self._ended: set[KeptStream] = set()  # ended, and not stored yet
        self._closing = False
        self._loading = Loading(store, self._streams, self.memory, restore=self._restore, drop=self._drop, report=self._storing.report)

    def __repr__(self) -> str:
        return f"<KeptStreams in_memory={len(self._streams)} bytes={self.memory.amount}>"

    @property
    def streams(self) -> Collection[KeptStream]:
        """The streams in memory, oldest first."""
        return self._streams.values()

    @property
    def openings(self) -> Collection[Opening]:
        """The openings of the streams that run or have no answer yet."""
        return self._openings

    @property
    def running(self) -> int:
        """Number of running streams."""
        return sum(stream.state == RUNNING for stream in self._streams.values())

    @contextlib.asynccontextmanager
    async def upkeep(self) -> AsyncIterator[None]:
        """Maintain the streams while the context is open. At its end, cut running streams and store them all."""
        keeping, expiring = asyncio.create_task(self._keep_up()), asyncio.create_task(self._expire_stored())
        try:
            yield
        finally:
            expiring.cancel()
            self._closing = True
            self._wanted.set()
            await asyncio.wait((keeping, expiring))
            tasks = [opening.task for opening in self._openings]
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
            await self._loading.close()
            for stream in self._streams.values():
                stream.stop(CUT, "the gateway stopped while it ran")
            await self._storing.bring(self._streams.values())
            await self._kept_in.close()
            keeping.result()

    def refusal(self, owner: str) -> Refusal | None:
        """Return why a client may not open another stream, or None. Streams without subscribers give way first."""
        return self._open_streams.refusal(owner)

    def open(self, head: StreamHead, route: Route, ask: _Ask, owner: str, private: Callable[[str], str] = str) -> Opening:
        """Send a request to an upstream. Its answer becomes a stream of the client `owner` if it is an event stream.

        `private` makes a name that the answer brings one of this client's.
        """
        opening = Opening(head, self._open_streams, owner, private)
        opening.task = asyncio.create_task(self._run(opening, route, ask))
        self._openings.add(opening)
        opening.task.add_done_callback(partial(self._settle, opening))
        opening.holding.set(1)
        self._by_key.put(opening)
        self._by_name.take(opening, route)
        return opening

    async def _run(self, opening: Opening, route: Route, ask: _Ask) -> None:
        upstream = await ask(opening)
        try:
            is_kept = opening.keeps and is_event_stream(upstream.status, upstream.headers)
            if not is_kept or not is_readable(content_encoding(upstream.headers)):
                end_answered(opening.span, upstream.status, {})
                opening.answer.set_result(upstream)
                return
            opening.cookies = upstream.headers.getall("Set-Cookie", [])
            fields = kept_fields(upstream, opening.head.id, route)
            stream = KeptStream(replace(opening.head, fields=tuple(fields.items())), route, self._wheel, self.memory)
            stream.request_id, stream.span, stream.awaited = opening.request_id, opening.span, not opening.left
            self._streams[opening.head.id] = stream
            self._observer.began_reading(stream, route.path)
            opening.answer.set_result(stream)
            self._by_name.search(opening, stream, upstream)
        except BaseException:
            upstream.close()
            raise
        try:
            await stream.follow(upstream)
        finally:
            upstream.close()
            stream.stop(CUT, "the gateway stopped while it ran")
            self._observer.ended_reading(stream)
            self._ended.add(stream)
            self._wanted.set()

    def _settle(self, opening: Opening, task: asyncio.Task[None]) -> None:
        """Fail the requests that wait for a stream, if its upstream request failed."""
        self._openings.discard(opening)
        opening.holding.close()
        error = None if task.cancelled() else task.exception()
        if opening.stream is None:
            self._forget(opening.head)
        if not opening.answer.done():
            if opening.span is not None:
                opening.span.end({"error.type": type(error).__name__}, "no answer")
            if error is None:
                opening.answer.cancel()
            else:
                opening.answer.set_exception(error)
                opening.answer.exception()  # mark it as retrieved: no request may be left to await it
        elif error is not None:
            task.get_loop().call_exception_handler({"message": "following an upstream failed", "exception": error, "task": task})

    def _forget(self, head: StreamHead) -> None:
        self._by_key.forget(head)
        self._by_name.forget(head)

    async def look_up(self, id: str) -> Found:
        """Return what is known of a stream, without loading its blocks. Raises StoreError."""
        return await self._loading.look_up(id)

    async def find(self, id: str) -> KeptStream | Refusal | str | None:
        """Return a stream, why it is gone, or why there is no memory for it, or None if it is unknown. Raises StoreError."""
        return await self._loading.find(id)

    def _restore(self, stored: StoredStream, blocks: Sequence[SealedBlocks], tail: bytes) -> KeptStream:
        stream = KeptStream.restore(stored, blocks, tail, self._routes(stored.head.route), self._wheel, self.memory)
        stream.awaited = True  # by the requests that loaded it
        self._streams[stored.head.id] = stream
        return stream

    def find_opening(self, head: StreamHead) -> Opening | None:
        """Return the stream with the same Idempotency-Key that this process has opened, or None."""
        return self._by_key.find(head)

    async def find_named(self, head: StreamHead) -> Opening | KeptStream | StoredStream | None:
        """Return the newest answer with the name of `head`, for its credentials, or None. It is not loaded if it is only in the store.

        Raises StoreError.
        """
        return self._by_name.find(head) or await self._look_up(self._kept_in.find_name(head.route, head.credentials, head.name))

    async def find_stored(self, head: StreamHead) -> KeptStream | StoredStream | None:
        """Return the stream with the same Idempotency-Key, without loading it, if it is only in the store."""
        if self.find_opening(head) is not None:
            return None
        return await self._look_up(self._kept_in.find_key(head.route, head.credentials, head.key))

    async def find_resumable(self, head: StreamHead, last_event_id: str) -> StreamHead | None:
        """Return the head of a stream that the request of `head` may resume after this event ID of the upstream's, or None.

        Streams with its Idempotency-Key come first, then the newest.
        """
        like = [stream for stream in self._streams.values() if head.may_continue(stream.head) and stream.find(last_event_id) is not None]
        if like:
            return max(like, key=lambda stream: (stream.head.key == head.key != "", stream.head.opened_at)).head
        if not head.credentials and not head.key:
            return None
        found = await self._look_up(self._kept_in.find_event(head, last_event_id))
        return found.head if found is not None else None

    async def _look_up(self, asking: Awaitable[str | None]) -> KeptStream | StoredStream | None:
        """Return the stream with the ID that the store finds."""
        try:
            id = await asking
        except StoreError as error:
            self._storing.report(error)
            raise
        found = await self.look_up(id) if id is not None else None
        return found if isinstance(found, KeptStream | StoredStream) else None

    async def _keep_up(self) -> None:
        """Maintain all streams each second, and store ended ones at once."""
        loop = asyncio.get_running_loop()
        next_round = loop.time() + _UPKEEP_SECONDS
        while not self._closing:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(next_round):
                    await self._wanted.wait()
            self._wanted.clear()
            if loop.time() < next_round:
                if not self._storing.failed:
                    await self._store(self._ended)
                self._relieve()
                await asyncio.sleep(_LEAST_UPKEEP_SECONDS)  # more streams may end meanwhile
                continue
            next_round = loop.time() + _UPKEEP_SECONDS
            self._look_at_all()
            await self._store(self._streams.values())
            self._expire(time.time())
            self._relieve()

    def _look_at_all(self) -> None:
        now = time.monotonic()
        for stream in tuple(self._streams.values()):
            if stream.state == RUNNING:
                stream.stop_if_orphaned(now)
            stream.fan_out.holding.set(stream.fan_out.history.cost)

    async def _store(self, streams: Iterable[KeptStream]) -> None:
        await self._storing.bring(tuple(streams))
        self._ended = {stream for stream in self._ended if not is_settled(stream)}

    async def _expire_stored(self) -> None:
        while True:
            await asyncio.sleep(_UPKEEP_SECONDS)
            try:
                await self._kept_in.expire(time.time())
            except StoreError as error:
                self._storing.report(error)

    def _expire(self, now: float) -> None:
        """Drop streams whose `retain_seconds` are over."""
        for stream in tuple(self._streams.values()):
            if stream.state != RUNNING and now >= stream.ended_at + stream.route.retain_seconds and not stream.viewers:
                self._drop(stream)

    def _relieve(self) -> None:
        relieve(self.memory, self._streams.values(), self._drop, store_fails=self._storing.failed)

    def _drop(self, stream: KeptStream) -> None:
        del self._streams[stream.head.id]
        self._ended.discard(stream)
        stream.close()
        self._forget(stream.head)
