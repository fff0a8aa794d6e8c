"""Blocks of an ended stream, as its history stores them."""

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter

READ_BYTES = 32 * 1024
"""Approximate size of one read. Readers of the same whole segment share one object."""
ID_BYTES = 160
"""Memory of an ID in an index besides its characters: a string, its number and its dict entry."""


@dataclass(frozen=True, slots=True)
class SealedBlocks:
    """Consecutive blocks of an ended stream, as a history stores them. `seal_blocks` makes them, in any thread."""

    data: bytes
    ends: "array[int]"
    """End of each block in `data`."""
    ids: dict[str, int]
    """IDs, each with the cursor after its block."""
    cost: int


def seal_blocks(data: bytes, ends: Sequence[int], ids: Sequence[tuple[int, str]], first: int) -> Iterator[SealedBlocks]:
    """Yield whole blocks, joined, that end at `ends`, in parts of one read each.

    `first` is the cursor before them. `ids` are pairs in their order: the number of blocks up to that of the ID, and the ID.
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
