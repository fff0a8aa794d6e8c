"""Match the blocks of two paths, though the two may begin and end at different events."""

import difflib
from dataclasses import dataclass, field

from .anatomy import Block

_MOST_BLOCKS = 2000
"""Blocks compared at most: matching takes quadratic time at worst."""
_LOOKED_AT = 20
_COMPARED_BYTES = 256
_ALIKE = 0.7


@dataclass(slots=True)
class Pairing:
    """The blocks of two paths, matched."""

    pairs: list[tuple[Block, Block]] = field(default_factory=list)
    removed: list[Block] = field(default_factory=list)
    """Blocks on the first path only, between blocks on both."""
    inserted: list[Block] = field(default_factory=list)
    """Blocks on the second path only, between blocks on both."""
    skipped_direct: int = 0
    """Blocks of the direct path before the first on both."""
    skipped_through: int = 0


def align(direct: list[Block], through: list[Block]) -> Pairing | None:
    """Pair blocks by their IDs, else by their events. Return None when the paths have nothing in common.

    Blocks before the first common block and after the last are no change: the two connections began and ended at different events.
    """
    direct, through = (_with_content(blocks)[:_MOST_BLOCKS] for blocks in (direct, through))
    by_id = _shares_ids(direct, through)
    before, after = ([_key(block, by_id) for block in blocks] for blocks in (direct, through))
    steps = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    equal = [number for number, step in enumerate(steps) if step[0] == "equal"]
    if not equal:
        return _pair_by_place(direct, through)
    pairing = Pairing(skipped_direct=steps[equal[0]][1], skipped_through=steps[equal[0]][3])
    for action, begin, end, begin_through, end_through in steps[equal[0] : equal[-1] + 1]:
        ours, theirs = direct[begin:end], through[begin_through:end_through]
        common = min(len(ours), len(theirs)) if action in ("equal", "replace") else 0
        pairing.pairs += zip(ours[:common], theirs[:common], strict=True)
        pairing.removed += ours[common:]
        pairing.inserted += theirs[common:]
    return pairing


def _pair_by_place(direct: list[Block], through: list[Block]) -> Pairing | None:
    """Pair blocks in order when every block was altered but most look alike: this is probably the same stream."""
    first = list(zip(direct, through, strict=False))[:_LOOKED_AT]
    if not first or sum(_similar(one, other) for one, other in first) < len(first) / 2:
        return None
    return Pairing(pairs=list(zip(direct, through, strict=False)))


def _similar(one: Block, other: Block) -> bool:
    if one.event and other.event and one.event.id and other.event.id and one.event.id != other.event.id:
        return False
    a, b = one.raw[:_COMPARED_BYTES], other.raw[:_COMPARED_BYTES]
    return difflib.SequenceMatcher(None, a, b, autojunk=False).ratio() > _ALIKE


def _with_content(blocks: list[Block]) -> list[Block]:
    """Drop blocks with only comments: each path may have its own."""
    return [block for block in blocks if block.names()]


def _shares_ids(direct: list[Block], through: list[Block]) -> bool:
    ours, theirs = ({block.event.id for block in blocks if block.event and block.event.id} for blocks in (direct, through))
    return bool(ours & theirs)


def _key(block: Block, by_id: bool) -> object:
    event = block.event
    if event is None:
        return tuple(block.lines())
    if by_id and event.id:
        return event.id
    return event.type, event.data
