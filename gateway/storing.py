"""Brings kept streams into the store."""

import asyncio
from collections.abc import Iterable

import structlog

from .kept_stream import KeptStream
from .stream_store import RUNNING, StoreError, StreamStore

log = structlog.get_logger()

_PART_BYTES = 256 * 1024


class Storing:
    """Brings streams into the store as far as they have come, and says once when that fails and when it works again."""

    def __init__(self, store: StreamStore) -> None:
        self.store = store
        self.failed = False
        """Whether the store did not do what it was last asked."""

    async def bring(self, streams: Iterable[KeptStream]) -> None:
        """Stores of each stream what the store does not have yet. One call at a time, and none may be cancelled: else blocks come twice."""
        unstored = [stream for stream in streams if _is_unstored(stream)]
        results = await asyncio.gather(*(self._bring_one(stream) for stream in unstored), return_exceptions=True)
        failures = [result for result in results if result is not None]
        for failure in failures:
            if not isinstance(failure, StoreError):
                raise failure
            self.report(failure)
        if self.failed and unstored and not failures:
            self.failed = False
            log.info("the store of streams works again")

    def report(self, error: StoreError) -> None:
        """Takes note that the store has failed."""
        if not self.failed:
            self.failed = True
            log.error("the store of streams fails, they are kept in memory only", error=str(error))

    async def _bring_one(self, stream: KeptStream) -> None:
        history, id = stream.fan_out.history, stream.head.id
        ended = stream.state != RUNNING  # before anything is awaited: what it has now is all of it
        if not stream.in_store:
            await self.store.create(stream.head)
            stream.in_store = True
        end = history.end
        while stream.stored_to < end:
            data, cursor = history.read(stream.stored_to, end)
            parts, size = [data], len(data)
            while cursor < end and size < _PART_BYTES:
                data, cursor = history.read(cursor, end)
                parts.append(data)
                size += len(data)
            await self.store.append(id, b"".join(parts))
            stream.stored_to = cursor
        if ended:
            await self.store.finish(id, stream.state, stream.reason, stream.ended_at + stream.route.retain_seconds)
            stream.end_stored = True


def _is_unstored(stream: KeptStream) -> bool:
    return not stream.end_stored and (stream.state != RUNNING or stream.stored_to < stream.fan_out.history.end or not stream.in_store)
