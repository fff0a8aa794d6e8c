"""Do the blocks come one by one, or does somebody collect them first?"""

import itertools
import statistics
from dataclasses import dataclass

from .anatomy import Anatomy, Clump
from .findings import Finding
from .observation import Head, Observation
from .quoting import Quote
from .suspects import advice

_HELD_SECONDS = 0.3  # a writer that is cut in the middle of a block goes on within a round trip
_LARGEST_BUFFER_BYTES = 1024 * 1024  # more is a source that has too much to send, or too little time
_CLUMP_BLOCKS = 3
_CLUMP_PAUSE_SECONDS = 0.2
_LEAST_BLOCKS = 3
_LATE_SECONDS = 1.0
_SHARE = 0.5
_BUFFER_SIZES = (1024, 1460, 2048, 4096, 8192, 16_384, 32_768, 65_536)
_NEAR = 0.1


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How the blocks came."""

    kind: str
    """`single`, `clumps`, `held` (clumps that end inside blocks), `at once` (all of it, after a silence) or `unknown`."""
    clumps: int
    blocks_per_clump: float
    pause_seconds: float
    """The median pause between clumps, and so about the delay that the first block of a clump suffers."""
    clump_bytes: int

    @property
    def buffered(self) -> bool:
        """Whether blocks had to wait for others."""
        return self.kind in ("clumps", "held", "at once")

    def is_buffered_beside(self, other: "Rhythm") -> bool:
        """Tells whether blocks had to wait here that did not have to elsewhere, as far as that can be told of the other."""
        return self.buffered and (other.kind == "single" or (other.kind == "unknown" and self.kind != "clumps"))


def measure_rhythm(seen: Observation, anatomy: Anatomy) -> Rhythm:
    """Finds out how the blocks came. The first clump may be a replay of what was before, so it counts for nothing if others follow."""
    clumps = [clump for clump in anatomy.clumps if clump.blocks or clump.inside]
    pauses = [after.begin - before.end for before, after in itertools.pairwise(clumps)]
    later = clumps[1:] or clumps
    per_clump = statistics.median(clump.blocks for clump in later) if later else 0
    pause = statistics.median(pauses) if pauses else 0.0
    size = round(statistics.median(clump.size for clump in _full(clumps, seen))) if clumps else 0
    return Rhythm(_kind(seen, anatomy, clumps, pauses, per_clump, pause), len(clumps), per_clump, pause, size)


def _full(clumps: list[Clump], seen: Observation) -> list[Clump]:
    """The clumps that may have been as large as a buffer: the last one of an answer that ended is what was left."""
    return clumps[:-1] if len(clumps) > 1 and seen.ending != "open" else clumps


def _kind(seen: Observation, anatomy: Anatomy, clumps: list[Clump], pauses: list[float], per_clump: float, pause: float) -> str:
    waits = [*pauses, seen.ended_seconds - clumps[-1].end] if clumps else []
    held = [
        clump
        for clump, wait in zip(clumps, waits, strict=True)
        if clump.inside and wait >= _HELD_SECONDS and clump.size <= _LARGEST_BUFFER_BYTES
    ]
    if held and len(held) >= _SHARE * max(1, len(_full(clumps, seen))):
        return "held"
    if len(anatomy.blocks) < _LEAST_BLOCKS:
        return "unknown"
    if len(clumps) == 1:
        late = clumps[0].begin - seen.asked_seconds >= _LATE_SECONDS
        return "at once" if late and seen.ending != "open" else "unknown"
    return "clumps" if per_clump >= _CLUMP_BLOCKS and pause >= _CLUMP_PAUSE_SECONDS else "single"


def judge_rhythm(seen: Observation, anatomy: Anatomy, head: Head, quote: Quote) -> Finding:
    """Says how the blocks came, and where to look when somebody collects them."""
    rhythm = measure_rhythm(seen, anatomy)
    size = near_size(rhythm.clump_bytes)
    came = f"{len(anatomy.blocks)} blocks came in {rhythm.clumps} clumps"
    match rhythm.kind:
        case "held":
            return Finding(
                "rhythm",
                "problem",
                f"{came} of about {size}, {rhythm.pause_seconds:.1f} s apart, which end in the middle of blocks",
                "a buffer on the way sends only when it is full: events come late, and half of the last one waits for the next clump",
                advice(head, quote),
            )
        case "at once":
            wait = anatomy.clumps[0].begin - seen.asked_seconds
            return Finding(
                "rhythm",
                "problem",
                f"all {len(anatomy.blocks)} blocks came at once, after {wait:.1f} s, and then the answer was over",
                "somebody collected the whole answer before sending it: it does not stream at all",
                advice(head, quote),
            )
        case "clumps":
            return Finding(
                "rhythm",
                "warning",
                f"{came} of about {rhythm.blocks_per_clump:g} blocks and {size}, {rhythm.pause_seconds:.1f} s apart",
                f"either the source sends like this, or a buffer delays events by up to {rhythm.pause_seconds:.1f} s",
                advice(head, quote, rhythm.pause_seconds),
            )
        case "single":
            return Finding("rhythm", "ok", f"{came}: one by one, {rhythm.pause_seconds:.2g} s apart in the median")
        case _:
            return _undecided(seen, anatomy)


def _undecided(seen: Observation, anatomy: Anatomy) -> Finding:
    count = len(anatomy.blocks)
    if count >= _LEAST_BLOCKS and seen.ending != "open":
        return Finding(
            "rhythm", "ok", f"all {count} blocks came at once, {anatomy.clumps[0].begin - seen.asked_seconds:.2g} s after the question"
        )
    return Finding(
        "rhythm",
        "note",
        f"{count} blocks came" + (" at once" if count > 1 else ""),
        "too few to tell whether they come one by one",
        "listen longer (--seconds), or publish something meanwhile",
    )


def near_size(size: int) -> str:
    """Gives a size in words, naming the usual buffer size that it is near to."""
    for usual in _BUFFER_SIZES:
        if abs(size - usual) <= _NEAR * usual:
            return f"{size} bytes (a buffer of {usual}?)"
    return f"{size} bytes"
