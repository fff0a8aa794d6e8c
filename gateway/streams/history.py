"""The newest event blocks of one stream, so that any number of subscribers can be at different places of it."""

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
    """How much a history keeps."""

    blocks: int
    bytes: int
    """Of blocks and of the index by ID together."""
    age_seconds: float


UNLIMITED = Limits(blocks=2**62, bytes=2**62, age_seconds=math.inf)


class _Segment:
    """Consecutive blocks: a list while they come, one `bytes` and where each block ends when it is full."""

    __slots__ = ("base", "begun", "blocks", "cost", "data", "ends", "first", "ids", "time")

    def __init__(self, first: int, base: int) -> None:
        self.first = first
        """The cursor before its first block."""
        self.base = base
        """How many bytes of blocks came before."""
        self.blocks: list[bytes] | None = []
        self.data = b""
        self.ends = array("L")
        self.ids: dict[str, int] = {}
        self.cost = 0
        self.begun = self.time = 0.0  # when its first and its newest block came

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
        """Gives the blocks from index `start` to before `stop`."""
        if self.blocks is not None:
            return self.blocks[start] if stop == start + 1 else b"".join(self.blocks[start:stop])
        if start == 0 and stop == len(self.ends):
            return self.data
        return self.data[self.start_of(start) : self.start_of(stop)]


class History:
    """A run of event blocks without holes, the newest within `limits`.

    A place in it is a cursor: the number of blocks before it, from 0 when the history began. Cursors from `first` to `end` can be read
    from; one before `first` is behind. `append` only adds; whoever knows which cursors are needed calls `trim`.
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
        self._before: tuple[str, int] | None = None  # the ID that stands for what comes before the first block
        self._last_read: tuple[int, int, int, bytes] | None = None
        self.first = 0
        self.end = 0
        self.end_bytes = 0
        """The bytes of all blocks that ever came."""
        self.cost = 0
        """Bytes in memory, about."""
        self.tail = b""
        """The unfinished block behind which a stream has ended. It has no cursor of its own: whoever is at `end` has had everything."""

    def __repr__(self) -> str:
        return f"<History {self.first}..{self.end} cost={self.cost}>"

    def append(self, block: bytes, id: str | None = None) -> None:
        """Takes the next block; `id` when the last event ID became `id` with it, None when it stayed."""
        segment, size = self._open, len(block)
        blocks = segment.blocks
        assert blocks is not None
        now = self._clock() if self._ages else 0.0
        if blocks and (
            self.end_bytes - segment.base + size > READ_BYTES
            or segment.cost > self._segment_cost
            or len(blocks) >= _SEGMENT_BLOCKS
            or now - segment.begun > self._segment_seconds  # or a slow stream would keep its old blocks for the sake of its new ones
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
        """Take the next blocks as they are, for a stream that has ended: `append` takes none behind them."""
        self.seal()
        if self._open.end > self._open.first:
            self._open = self._begin_segment(self.end, self.end_bytes)
        segment = self._open
        segment.blocks, segment.data, segment.ends, segment.ids, segment.cost = None, blocks.data, blocks.ends, blocks.ids, blocks.cost
        self.end += len(blocks.ends)
        self.end_bytes += len(blocks.data)
        self.cost += blocks.cost

    def end_behind(self, tail: bytes) -> None:
        """Take the unfinished block behind which the stream has ended."""
        self.tail = tail
        self.cost += len(tail)

    def seal(self) -> None:
        """Joins what is open, because no more blocks come: they take less memory so."""
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
        """Forgets what the limits no longer cover and nothing from the cursor `keep` on."""
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
        """Forgets the oldest segment, for the sake of other histories, unless it reaches beyond the cursor `keep`; gives whether it did."""
        first = self._segments[1].first if len(self._segments) > 1 else self.end
        if first > keep or first == self.first:
            return False
        self._forget(first)
        return True

    def clear(self, keep: int) -> None:
        """Forgets everything before the cursor `keep`. Who has had the newest event still misses nothing."""
        self._forget(min(keep, self.end))

    def _forget(self, first: int) -> None:
        if first <= self.first:
            return
        self.first = first
        self._before = None
        self._last_read = None  # or it would keep in memory what counts no more
        while self._segments[0] is not self._open and self._segments[0].end <= first:
            self._drop(self._segments.popleft())
        if self._open.end > self._open.first and first == self.end:  # all of it is too old
            self._before = (self._newest_id, first) if self._newest_id else None
            self._drop(self._open)
            self._segments.clear()
            self._open = self._begin_segment(self.end, self.end_bytes)

    def _drop(self, segment: _Segment) -> None:
        self.cost -= segment.cost
        if segment.end == self.first:  # whoever has had its last event misses nothing yet
            self._before = next(((id, cursor) for id, cursor in segment.ids.items() if cursor == self.first), None)

    def begins_after(self, id: str) -> None:
        """Notes that the first block is the one that follows event `id`."""
        self._before = (id, self.first)

    def find(self, id: str) -> int | None:
        """Gives the cursor after the block with which the last event ID became `id`, the newest one; None when it is not there."""
        for segment in reversed(self._segments):
            cursor = segment.ids.get(id)
            if cursor is not None:
                return cursor if cursor >= self.first else None
        if self._before is not None and self._before[0] == id:
            return self._before[1]
        return None

    def first_id(self) -> str | None:
        """Gives the first event ID that is in the history, None when there is none."""
        for segment in self._segments:
            for id, cursor in segment.ids.items():
                if cursor > self.first:
                    return id
        return None

    def read(self, cursor: int, upto: int) -> tuple[bytes, int]:
        """Gives whole blocks from `cursor`, at least one, not beyond the cursor `upto` and about READ_BYTES at most, and the cursor after
        them. Equal reads in a row give the same object. Both cursors must be within the history, `cursor < upto`."""
        if self._last_read is not None and self._last_read[:2] == (cursor, upto):
            return self._last_read[3], self._last_read[2]
        data, after = self.copy(cursor, upto)
        self._last_read = (cursor, upto, after, data)
        return data, after

    def copy(self, cursor: int, upto: int) -> tuple[bytes, int]:
        """Gives what `read` gives, to one who reads alone: it is not remembered for others, nor its memory kept."""
        segment = self._segment_of(cursor)
        stop = min(upto, segment.end)
        return segment.join(cursor - segment.first, stop - segment.first), stop

    def block(self, cursor: int) -> bytes:
        """Gives the block that ends at `cursor`, which must be within the history."""
        segment = self._segment_of(cursor - 1)
        index = cursor - 1 - segment.first
        return segment.join(index, index + 1)

    def position(self, cursor: int) -> int:
        """Gives how many bytes of blocks came before `cursor`, which must be within the history."""
        if cursor == self.end:
            return self.end_bytes
        segment = self._segment_of(cursor)
        if segment.blocks is not None:  # it is the newest, and who is here is mostly near the end
            return self.end_bytes - sum(map(len, segment.blocks[cursor - segment.first :]))
        return segment.base + segment.start_of(cursor - segment.first)

    def _segment_of(self, cursor: int) -> _Segment:
        """Gives the segment of the block that follows `cursor`."""
        if cursor >= self._open.first:
            return self._open
        return self._segments[bisect_right(self._segments, cursor, key=lambda segment: segment.first) - 1]
