"""Write kept streams to the store."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any

import structlog

from .kept_stream import KeptStream
from .store import RUNNING, StoreError, StreamEvicted, StreamStore

log = structlog.get_logger()

_PART_BYTES = 256 * 1024
_ENDED_PART_BYTES = 1024 * 1024  # a transaction waits 0.1 s, so that 16 MiB in small parts would take 7 s at a shutdown
_STREAMS_AT_ONCE = 64


class Storing:
    """Write streams to the store as they grow. Log once when that fails, and once when it works again."""

    def __init__(self, store: StreamStore) -> None:
        self.store = store
        self.failed = False
        """Whether the last call of the store failed."""

    async def bring(self, streams: Iterable[KeptStream]) -> None:
        """Store the new blocks of each stream. Calls must not overlap or be cancelled, otherwise blocks are stored twice."""
        unstored = [stream for stream in streams if _is_unstored(stream)]
        running = [stream for stream in unstored if stream.in_store and stream.name_stored and stream.state == RUNNING]
        others = [stream for stream in unstored if stream not in running]
        steps = [asyncio.ensure_future(self._bring_one(stream)) for stream in others]
        for start in range(0, len(running), _STREAMS_AT_ONCE):
            steps.append(asyncio.ensure_future(self._append(running[start : start + _STREAMS_AT_ONCE])))
            await asyncio.sleep(0)  # let other events proceed
        failures = [result for result in await asyncio.gather(*steps, return_exceptions=True) if result is not None]
        for failure in failures:
            if not isinstance(failure, StoreError):
                raise failure
            self.report(failure)
        if self.failed and unstored and not failures:
            self.failed = False
            log.info("the store of streams works again")

    def report(self, error: StoreError) -> None:
        """Record that the store has failed."""
        if not self.failed:
            self.failed = True
            log.error("the store of streams fails; they are kept in memory only", error=str(error))

    async def _append(self, streams: Sequence[KeptStream]) -> None:
        """Store the new blocks of running streams, with one call for all."""
        unstored = [(stream, stream.fan_out.history.end) for stream in streams]
        failures: list[Exception] = []
        while unstored:
            parts = [_read(stream, end) for stream, end in unstored]
            outcomes = await self.store.append_all([(stream.head.id, data) for (stream, _), (data, _) in zip(unstored, parts, strict=True)])
            left = []
            for (stream, end), (_, cursor), failure in zip(unstored, parts, outcomes, strict=True):
                if isinstance(failure, StreamEvicted):
                    _keep_in_memory(stream, failure)
                    continue
                if failure is not None:
                    failures.append(failure)
                    continue
                stream.stored_to = cursor
                if cursor < end:
                    left.append((stream, end))
            unstored = left
        if failures:
            raise failures[0]

    async def _bring_one(self, stream: KeptStream) -> None:
        """Call all steps at once, for one transaction. The store runs them in order, and none after a failure."""
        ended, end = stream.state != RUNNING, stream.fan_out.history.end  # before any await: an ended stream has all its blocks
        while True:
            steps: list[tuple[Coroutine[Any, Any, None], Callable[[], None]]] = []
            if not stream.in_store:
                steps.append((self.store.create(stream.head), partial(setattr, stream, "in_store", True)))
            if not stream.name_stored:
                steps.append((self.store.name(stream.head.id, stream.head.name), partial(setattr, stream, "name_stored", True)))
            cursor = stream.stored_to
            for data, cursor in _pieces(stream, end, _ENDED_PART_BYTES if ended else _PART_BYTES):
                steps.append((self.store.append(stream.head.id, data), partial(setattr, stream, "stored_to", cursor)))
            if ended and cursor == end:
                if stream.fan_out.history.tail and not stream.tail_stored:
                    append = self.store.append(stream.head.id, stream.fan_out.history.tail)
                    steps.append((append, partial(setattr, stream, "tail_stored", True)))
                keep_until = stream.ended_at + stream.route.retain_seconds
                cost = stream.fan_out.history.cost
                finish = self.store.finish(stream.head.id, stream.state, stream.reason, keep_until, block_count=end, cost=cost)
                steps.append((finish, partial(setattr, stream, "end_stored", True)))
            outcomes = await asyncio.gather(*(step for step, _ in steps), return_exceptions=True)
            for outcome, (_, note) in zip(outcomes, steps, strict=True):
                if isinstance(outcome, StreamEvicted):
                    _keep_in_memory(stream, outcome)
                    return
                if outcome is not None:
                    raise outcome
                note()
            if cursor == end:
                return


def is_settled(stream: KeptStream) -> bool:
    """Whether the store needs nothing more of a stream."""
    return stream.end_stored or stream.memory_only


def _keep_in_memory(stream: KeptStream, error: StreamEvicted) -> None:
    """Keep a stream in memory only: the store takes no more of it. The limit of memory still applies."""
    stream.memory_only = True
    log.warning("stream is kept in memory only", stream=stream.head.id[:8], reason=str(error))


def _read(stream: KeptStream, end: int) -> tuple[bytes, int]:
    """Return the next part that the store does not have, and the cursor after it."""
    pieces = _pieces(stream, end, _PART_BYTES)
    return b"".join(data for data, _ in pieces), pieces[-1][1] if pieces else end


def _pieces(stream: KeptStream, end: int, most_bytes: int) -> list[tuple[bytes, int]]:
    """Return the pieces of the next part, copied only where necessary, each with the cursor after it."""
    pieces: list[tuple[bytes, int]] = []
    size, cursor = 0, stream.stored_to
    while cursor < end and size < most_bytes:
        data, cursor = stream.fan_out.history.copy(cursor, end)
        pieces.append((data, cursor))
        size += len(data)
    return pieces


def _is_unstored(stream: KeptStream) -> bool:
    if is_settled(stream) or stream.state != RUNNING:
        return not is_settled(stream)
    return stream.head.body != b"" and (
        stream.stored_to < stream.fan_out.history.end or not stream.in_store or not stream.name_stored
    )  # without a digest the body is still arriving
