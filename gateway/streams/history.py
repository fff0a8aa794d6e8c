"""The newest event blocks of one stream, for any number of subscribers at different cursors."""

import math
from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate

from .sealed import ID_BYTES, SealedBlocks
from .sealed import READ_BYTES as READ_BYTES

_SEGMENT_BLOCKS = 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a history."""

    blocks: int
    bytes: int
    """Bytes of blocks and of the index by ID together."""
    age_seconds: float


UNLIMITED = Limits(blocks=2**62, bytes=2**62, age_seconds=math.inf)


class _Segment:
    """Consecutive blocks: a list while blocks are appended; sealed, one `bytes` and the end of each block in it."""

    __slots__ = ("base", "begun", "blocks", "cost", "data", "ends", "first", "ids", "time")

    def __init__(self, first: int, base: int) -> None:
        self.first = first
        """The cursor before its first block."""
        self.base = base
        """Bytes of all blocks before its first one."""
        self.blocks: list[bytes] | None = []
        self.data = b""
        self.ends = array("L")
        self.ids: dict[str, int] = {}
        self.cost = 0
        self.begun = self.time = 0.0  # times of its first and its newest block

    @property
    def end(self) -> int:
        """The cursor after its newest block."""
        return self.first + len(self.ends if self.blocks is None else self.blocks)

    def seal(self) -> None:
        assert self.blocks is not None
        self.data = b"".join(self.blocks)
        self.ends = array("L", accumulate(map(len, self.blocks)))
        self.blocks = None

    def start_of(self, index: int) -> int:
        return self.ends[index - 1] if index else 0

    def join(self, start: int, stop: int) -> bytes:
        """Return the blocks from index `start` to before `stop`, joined."""
        if self.blocks is not None:
            return self.blocks[start] if stop == start + 1 else b"".join(self.blocks[start:stop])
        if start == 0 and stop == len(self.ends):
            return self.data
        return self.data[self.start_of(start) : self.start_of(stop)]


class History:
    """The newest event blocks of a stream within `limits`, without gaps.

    A cursor is the number of blocks before a position, since the history began. Blocks can be read at cursors from `first` to `end`; an
    earlier cursor is behind. `append` never drops blocks: the owner, which knows the cursors in use, calls `trim`.
    """

    __slots__ = (
        "_ages",
        "_before",
        "_clock",
        "_last_read",
        "_limits",
        "_newest_id",
        "_open",
        "_segment_cost",
        "_segment_seconds",
        "_segments",
        "cost",
        "end",
        "end_bytes",
        "first",
        "tail",
    )

    def __init__(self, limits: Limits, *, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._segment_cost = limits.bytes // 8
        self._segment_seconds = limits.age_seconds / 8
        self._ages = limits.age_seconds < math.inf
        self._clock = clock
        self._segments: deque[_Segment] = deque()
        self._open = self._begin_segment(0, 0)
        self._newest_id = ""
        self._before: tuple[str, int] | None = None  # (ID, cursor) of the event just before the first block, if known
        self._last_read: tuple[int, int, int, bytes] | None = None
        self.first = 0
        self.end = 0
        self.end_bytes = 0
        """Bytes of all blocks ever appended."""
        self.cost = 0
        """Bytes in memory, approximately."""
        self.tail = b""
        """The unfinished block at the end of the stream. It has no cursor of its own: at `end` only the tail is left to send."""

    def __repr__(self) -> str:
        return f"<History {self.first}..{self.end} cost={self.cost}>"

    def append(self, block: bytes, id: str | None = None) -> None:
        """Append the next block. `id` is the last event ID after it, or None if the block does not set it."""
        segment, size = self._open, len(block)
        blocks = segment.blocks
        assert blocks is not None
        now = self._clock() if self._ages else 0.0
        if blocks and (
            self.end_bytes - segment.base + size > READ_BYTES
            or segment.cost > self._segment_cost
            or len(blocks) >= _SEGMENT_BLOCKS
            or now - segment.begun > self._segment_seconds  # otherwise a slow stream keeps old blocks beside new ones
        ):
            segment.seal()
            segment = self._open = self._begin_segment(self.end, self.end_bytes)
            blocks = segment.blocks = []
        if self._ages:
            segment.time = now
            if not blocks:
                segment.begun = now
        blocks.append(block)
        self.end += 1
        self.end_bytes += size
        if id is not None:
            segment.ids[id] = self.end
            size += ID_BYTES + len(id)
            self._newest_id = id or self._newest_id
        segment.cost += size
        self.cost += size

    def adopt(self, blocks: SealedBlocks) -> None:
        """Append the sealed blocks of a stream that has ended. `append` must not be called after that."""
        self.seal()
        if self._open.end > self._open.first:
            self._open = self._begin_segment(self.end, self.end_bytes)
        segment = self._open
        segment.blocks, segment.data, segment.ends, segment.ids, segment.cost = None, blocks.data, blocks.ends, blocks.ids, blocks.cost
        self.end += len(blocks.ends)
        self.end_bytes += len(blocks.data)
        self.cost += blocks.cost

    def end_behind(self, tail: bytes) -> None:
        """Set the unfinished block at the end of the stream."""
        self.tail = tail
        self.cost += len(tail)

    def seal(self) -> None:
        """Seal the open segment, which takes less memory then. No more blocks may be appended."""
        if self._open.blocks is not None:
            self._open.seal()
        self._last_read = None

    def _begin_segment(self, first: int, base: int) -> _Segment:
        segment = _Segment(first, base)
        self._segments.append(segment)
        return segment

    @property
    def full(self) -> bool:
        """Whether there are more blocks or bytes than the limits allow, so that `trim` is due."""
        return self.end - self.first > self._limits.blocks or self.cost > self._limits.bytes

    def trim(self, keep: int) -> None:
        """Drop blocks beyond the limits, but none after the cursor `keep`."""
        first = max(self.first, self.end - self._limits.blocks)
        oldest = self._clock() - self._limits.age_seconds
        cost = self.cost
        for segment in self._segments:
            too_old = segment.time < oldest
            if cost <= self._limits.bytes and not too_old:
                break
            if segment is self._open:
                first = self.end if too_old else max(first, self.end - 1)
            else:
                first = max(first, segment.end)
                cost -= segment.cost
        self._forget(min(first, keep))

    def drop_oldest(self, keep: int) -> bool:
        """Drop the oldest segment, to free memory for other histories, unless it ends after the cursor `keep`. Return whether it did."""
        first = self._segments[1].first if len(self._segments) > 1 else self.end
        if first > keep or first == self.first:
            return False
        self._forget(first)
        return True

    def clear(self, keep: int) -> None:
        """Drop all blocks before the cursor `keep`. A client that has the newest event can still resume without a gap."""
        self._forget(min(keep, self.end))

    def _forget(self, first: int) -> None:
        if first <= self.first:
            return
        self.first = first
        self._before = None
        self._last_read = None  # otherwise it would keep memory that is no longer counted
        while self._segments[0] is not self._open and self._segments[0].end <= first:
            self._drop(self._segments.popleft())
        if self._open.end > self._open.first and first == self.end:  # all of it is too old
            self._before = (self._newest_id, first) if self._newest_id else None
            self._drop(self._open)
            self._segments.clear()
            self._open = self._begin_segment(self.end, self.end_bytes)

    def _drop(self, segment: _Segment) -> None:
        self.cost -= segment.cost
        if segment.end == self.first:  # a client that has its last event can still resume
            self._before = next(((id, cursor) for id, cursor in segment.ids.items() if cursor == self.first), None)

    def begins_after(self, id: str) -> None:
        """Record that the first block follows the event `id`."""
        self._before = (id, self.first)

    def find(self, id: str) -> int | None:
        """Return the cursor after the newest block that set the last event ID to `id`. Return None if no kept block did."""
        for segment in reversed(self._segments):
            cursor = segment.ids.get(id)
            if cursor is not None:
                return cursor if cursor >= self.first else None
        if self._before is not None and self._before[0] == id:
            return self._before[1]
        return None

    def first_id(self) -> str | None:
        """Return the first event ID in the history, or None if there is none."""
        for segment in self._segments:
            for id, cursor in segment.ids.items():
                if cursor > self.first:
                    return id
        return None

    def read(self, cursor: int, upto: int) -> tuple[bytes, int]:
        """Return whole blocks from `cursor` to `upto` at most, and the cursor after them: at least one, and about READ_BYTES at most.

        Equal reads in a row return the same object. Both cursors must be within the history, with `cursor < upto`.
        """
        if self._last_read is not None and self._last_read[:2] == (cursor, upto):
            return self._last_read[3], self._last_read[2]
        data, after = self.copy(cursor, upto)
        self._last_read = (cursor, upto, after, data)
        return data, after

    def copy(self, cursor: int, upto: int) -> tuple[bytes, int]:
        """Do the same as `read`, for a single reader: the result is not kept for others."""
        segment = self._segment_of(cursor)
        stop = min(upto, segment.end)
        return segment.join(cursor - segment.first, stop - segment.first), stop

    def block(self, cursor: int) -> bytes:
        """Return the block that ends at `cursor`, which must be within the history."""
        segment = self._segment_of(cursor - 1)
        index = cursor - 1 - segment.first
        return segment.join(index, index + 1)

    def position(self, cursor: int) -> int:
        """Return the bytes of all blocks before `cursor`, which must be within the history."""
        if cursor == self.end:
            return self.end_bytes
        segment = self._segment_of(cursor)
        if segment.blocks is not None:  # the newest segment: its readers are mostly near the end
            return self.end_bytes - sum(map(len, segment.blocks[cursor - segment.first :]))
        return segment.base + segment.start_of(cursor - segment.first)

    def _segment_of(self, cursor: int) -> _Segment:
        """Return the segment of the block that follows `cursor`."""
        if cursor >= self._open.first:
            return self._open
        return self._segments[bisect_right(self._segments, cursor, key=lambda segment: segment.first) - 1]
