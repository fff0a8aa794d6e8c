"""Runs of event blocks, which readers take in pieces that are joined once for all of them."""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate

from .event_log import Stored

PIECE_BYTES = 64 * 1024
"""The size of one send; a single block may be larger."""

_KEPT_PIECES = 32
_COMPACT_FROM = 1024


@dataclass(frozen=True, slots=True)
class Piece:
    """Some event blocks, joined."""

    body: bytes
    first: int
    """Offset of its first event."""
    last: int
    """Offset of its last event."""
    events: int


class Run:
    """Blocks in the order of their offsets; it grows at its end and shrinks at its head.

    Pieces end where the bytes of the run reach a multiple of PIECE_BYTES, so that readers that began at different places soon share them.
    """

    __slots__ = ("_base", "_blocks", "_ends", "_head", "_offsets", "_pieces")

    def __init__(self, events: Iterable[Stored] = ()) -> None:
        self._offsets: list[int] = []
        self._blocks: list[bytes] = []
        self._ends: list[int] = []  # bytes of all blocks up to and including this one, evicted ones too
        self._base = 0  # the same before the first
        self._head = 0  # entries before it in the lists are evicted
        self._pieces: dict[int, Piece] = {}  # by the index of the first block
        for event in events:
            self.append(event)

    def __repr__(self) -> str:
        return f"<Run events={len(self)} bytes={self.bytes}>"

    def __len__(self) -> int:
        return len(self._offsets) - self._head

    @property
    def bytes(self) -> int:
        """Bytes of all blocks."""
        return self._ends[-1] - self._start_of(self._head) if self._ends else 0

    def append(self, event: Stored) -> None:
        """Add a block, whose offset must be the highest."""
        self._ends.append((self._ends[-1] if self._ends else self._base) + len(event.block))
        self._offsets.append(event.offset)
        self._blocks.append(event.block)
        self._pieces.clear()

    def put_in_front(self, other: "Run", upto: int) -> None:
        """Add the blocks of `other` with offsets up to `upto`, which must be lower than all offsets here."""
        self._forget_evicted()
        count = bisect_right(other._offsets, upto, other._head)
        blocks = other._blocks[other._head : count]
        ends = list(accumulate(map(len, blocks), initial=self._base - sum(map(len, blocks))))
        self._base = ends.pop(0)
        self._ends[:0] = ends
        self._offsets[:0] = other._offsets[other._head : count]
        self._blocks[:0] = blocks
        self._pieces.clear()

    def evict(self) -> int:
        """Remove the first block and return its offset."""
        offset = self._offsets[self._head]
        self._blocks[self._head] = b""
        self._head += 1
        self._pieces.clear()
        if self._head >= _COMPACT_FROM and self._head * 2 >= len(self._offsets):
            self._forget_evicted()
        return offset

    def piece(self, after: int, upto: int | None = None, max_events: int | None = None) -> Piece | None:
        """Return the next blocks with offsets above `after`, up to `upto`, at most `max_events`; None when there is none.

        Without the last two arguments, a piece is joined once for all readers.
        """
        begin = bisect_right(self._offsets, after, self._head)
        if begin == len(self._offsets):
            return None
        piece = self._pieces.get(begin)
        if piece is None:
            start = self._start_of(begin)
            end = bisect_right(self._ends, (start // PIECE_BYTES + 1) * PIECE_BYTES, begin)
            piece = self._join(begin, max(end, begin + 1))
            if len(self._pieces) == _KEPT_PIECES:
                del self._pieces[next(iter(self._pieces))]
            self._pieces[begin] = piece
        if (upto is None or piece.last <= upto) and (max_events is None or piece.events <= max_events):
            return piece
        end = begin + piece.events if max_events is None else min(begin + piece.events, begin + max_events)
        if upto is not None:
            end = bisect_right(self._offsets, upto, begin, end)
        return self._join(begin, end) if end > begin else None

    def _forget_evicted(self) -> None:
        self._base = self._start_of(self._head)
        del self._offsets[: self._head], self._blocks[: self._head], self._ends[: self._head]
        self._head = 0

    def _join(self, begin: int, end: int) -> Piece:
        return Piece(b"".join(self._blocks[begin:end]), self._offsets[begin], self._offsets[end - 1], end - begin)

    def _start_of(self, index: int) -> int:
        return self._ends[index - 1] if index else self._base
