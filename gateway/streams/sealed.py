"""Blocks of a stream that has ended, as its history keeps them."""

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter

READ_BYTES = 32 * 1024
"""About as many bytes are read at once: what is read whole is one object, whoever reads it."""
ID_BYTES = 160
"""What an ID costs in an index, beside its characters: a string, its number and its place in a dict."""


@dataclass(frozen=True, slots=True)
class SealedBlocks:
    """Consecutive blocks as a history keeps them when no more come; `seal_blocks` makes them, in any thread."""

    data: bytes
    ends: "array[int]"
    """Where each block ends in `data`."""
    ids: dict[str, int]
    """IDs, each with the cursor after its block."""
    cost: int


def seal_blocks(data: bytes, ends: Sequence[int], ids: Sequence[tuple[int, str]], first: int) -> Iterator[SealedBlocks]:
    """Return whole blocks, joined, that end at `ends`, in parts that are read at once.

    `first` is the cursor before them; `ids` are IDs in their order, each behind the number of blocks up to its own.
    """
    begin = place = 0
    while begin < len(ends):
        base = ends[begin - 1] if begin else 0
        stop = max(begin + 1, bisect_right(ends, base + READ_BYTES, begin))
        after = bisect_right(ids, stop, place, key=itemgetter(0))
        own = ids[place:after]
        cost = ends[stop - 1] - base + sum(ID_BYTES + len(id) for _, id in own)
        places = array("L", [end - base for end in ends[begin:stop]])
        yield SealedBlocks(data[base : ends[stop - 1]], places, {id: first + cursor for cursor, id in own}, cost)
        begin, place = stop, after
