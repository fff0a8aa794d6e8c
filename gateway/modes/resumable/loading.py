"""Load ended streams from the store, within the memory limit of kept streams."""

import asyncio
import re
import sys
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate

from eventstream import Framer, split_blocks

from ...access.budget import Budget, Holding
from ...policy.refusal import Refusal
from ...streams.sealed import SealedBlocks, seal_blocks
from ...streams.stamping import find_ids, read_stamp
from .kept_stream import KeptStream
from .relief import make_room
from .store import EXPIRED, RUNNING, StoredStream, StoreError, StreamStore

_BLANK_LINE = re.compile(rb"\n\n")

Found = KeptStream | StoredStream | str | None
"""A stream in memory, one in the store, or why it is gone; None if it is unknown."""


class Loading:
    """Find streams in memory and in the store. Loaded streams count in the budget before their first byte is read.

    Requests for one stream share one load. `restore` adds a stream to memory, and `drop` removes one.
    """

    def __init__(
        self,
        store: StreamStore,
        streams: Mapping[str, KeptStream],
        memory: Budget,
        *,
        restore: Callable[[StoredStream, Sequence[SealedBlocks], bytes], KeptStream],
        drop: Callable[[KeptStream], None],
        report: Callable[[StoreError], None],
    ) -> None:
        self._store = store
        self._streams = streams
        self._memory = memory
        self._restore = restore
        self._drop = drop
        self._report = report
        self._loads: dict[str, asyncio.Task[KeptStream | str | None]] = {}

    def __repr__(self) -> str:
        return f"<Loading loads={len(self._loads)}>"

    async def look_up(self, id: str) -> Found:
        """Return what is known of a stream, without loading its blocks. Raises StoreError."""
        if (stream := self._streams.get(id)) is not None:
            return stream
        try:
            stored = await self._store.look_up(id)
        except StoreError as error:
            self._report(error)
            raise
        return self._streams.get(id) or _judge(stored)  # it may have been loaded meanwhile

    async def find(self, id: str) -> KeptStream | Refusal | str | None:
        """Return a stream, loaded if necessary, why it is gone, or why there is no memory for it. Return None if it is unknown.

        Raises StoreError.
        """
        found = await self.look_up(id)
        if not isinstance(found, StoredStream):
            return found
        load = self._loads.get(id)
        if load is None:
            cost = found.cost if found.cost is not None else found.size
            if (refusal := make_room(self._memory, self._streams.values(), self._drop, found.head.owner, cost)) is not None:
                return refusal
            holding = self._memory.open(found.head.owner, cost)  # at once, so that other requests in this turn of the event loop see it
            load = self._loads[id] = asyncio.create_task(self._load(found, holding))
            load.add_done_callback(lambda _: self._loads.pop(id))
        return await asyncio.shield(load)

    async def _load(self, found: StoredStream, holding: Holding) -> KeptStream | str | None:
        blocks = LoadedBlocks(found.head.id)
        try:
            stored = _judge(await self._store.load(found.head.id, blocks.take))
        except StoreError as error:
            self._report(error)
            raise
        finally:
            holding.close()
        return self._restore(stored, blocks.parts, blocks.flush()) if isinstance(stored, StoredStream) else stored

    async def close(self) -> None:
        """Cancel all loads."""
        loads = tuple(self._loads.values())
        for load in loads:
            load.cancel()
        if loads:
            await asyncio.wait(loads)


def _judge(stored: StoredStream | None) -> StoredStream | str | None:
    """Return a stream that can be loaded, or why it cannot."""
    if stored is not None and stored.state == RUNNING:
        return "it ended while the store failed, and left memory before it worked again"
    if stored is not None and stored.state == EXPIRED:
        return f"{stored.state}: {stored.reason}; what it sent is no longer kept"
    return stored


class LoadedBlocks:
    """The blocks of a stored stream, sealed in the thread that reads them."""

    def __init__(self, id: str) -> None:
        self.parts: list[SealedBlocks] = []
        self._id = id
        self._before_number = b"\nid: %b-" % id.encode()
        self._framer = Framer(sys.maxsize, max_block_lines=sys.maxsize, keeps_mark=True)
        self._end = 0

    def __repr__(self) -> str:
        return f"<LoadedBlocks blocks={self._end}>"

    def take(self, part: bytes) -> None:
        """Add the next blocks."""
        blocks = self._framer.feed(part)
        if not blocks:
            return
        ends = _ends_of(blocks)
        self.parts += seal_blocks(blocks, ends, self._ids_of(blocks, ends), self._end)
        self._end += len(ends)

    def flush(self) -> bytes:
        """Return the unfinished block after the last whole one."""
        return self._framer.flush()

    def _ids_of(self, blocks: bytes, ends: Sequence[int]) -> list[tuple[int, str]]:
        """Return the upstream's IDs, as pairs of block number and ID. The gateway's own IDs give the block number themselves."""
        if blocks.count(b"\nid") + blocks.count(b"\rid") + blocks.startswith(b"id") == blocks.count(self._before_number):
            return []
        ids: list[tuple[int, str]] = []
        for place, id in find_ids(blocks):
            number = bisect_right(ends, place) + 1
            if ids and ids[-1][0] == number:
                ids.pop()  # the last ID of a block counts
            if not (id.startswith(self._id) and (stamped := read_stamp(id)) is not None and stamped[0] == self._id):
                ids.append((number, id))
        return ids


def _ends_of(blocks: bytes) -> list[int]:
    """Return the end of each block. In simple cases this takes a tenth of the time of `split_blocks`, which defines a block."""
    if b"\r" in blocks or b"\n\n\n" in blocks or blocks.startswith(b"\n"):
        return list(accumulate(map(len, split_blocks(blocks))))
    return [match.end() for match in _BLANK_LINE.finditer(blocks)]
