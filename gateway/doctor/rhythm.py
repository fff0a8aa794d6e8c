"""Judge whether blocks arrive one by one, or a proxy buffers them."""

import itertools
import statistics
from dataclasses import dataclass

from .anatomy import Anatomy, Clump
from .findings import Finding
from .observation import Head, Observation
from .quoting import Quote
from .suspects import advice

_HELD_SECONDS = 0.3  # the network delivers the rest of a split block within a round trip
_LARGEST_BUFFER_BYTES = 1024 * 1024  # a larger clump comes from a source that sends more than the path carries
_CLUMP_BLOCKS = 3
_CLUMP_PAUSE_SECONDS = 0.2
_LEAST_BLOCKS = 3
_LATE_SECONDS = 1.0
_SHARE = 0.5
_BUFFER_SIZES = (1024, 1460, 2048, 4096, 8192, 16_384, 32_768, 65_536)
_NEAR = 0.1


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How the blocks arrived."""

    kind: str
    """`single`, `clumps`, `held` (clumps that end inside blocks), `at once` (everything after a silence) or `unknown`."""
    clumps: int
    blocks_per_clump: float
    pause_seconds: float
    """Median pause between clumps, which is roughly the delay of the first block of a clump."""
    clump_bytes: int

    @property
    def buffered(self) -> bool:
        """Whether blocks waited for later ones."""
        return self.kind in ("clumps", "held", "at once")

    def is_buffered_beside(self, other: "Rhythm") -> bool:
        """Return whether blocks waited here but not in `other`, as far as the rhythm of `other` is known."""
        return self.buffered and (other.kind == "single" or (other.kind == "unknown" and self.kind != "clumps"))


def measure_rhythm(seen: Observation, anatomy: Anatomy) -> Rhythm:
    """Return how the blocks arrived. If other clumps follow the first, it is ignored, because it may be a replay."""
    clumps = [clump for clump in anatomy.clumps if clump.blocks or clump.inside]
    pauses = [after.begin - before.end for before, after in itertools.pairwise(clumps)]
    later = clumps[1:] or clumps
    per_clump = statistics.median(clump.blocks for clump in later) if later else 0
    pause = statistics.median(pauses) if pauses else 0.0
    size = round(statistics.median(clump.size for clump in _full(clumps, seen))) if clumps else 0
    return Rhythm(_kind(seen, anatomy, clumps, pauses, per_clump, pause), len(clumps), per_clump, pause, size)


def _full(clumps: list[Clump], seen: Observation) -> list[Clump]:
    """Return the clumps that may have filled a buffer: all but the last of an answer that ended, which is the remainder."""
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
        late = clumps[0].begin - seen.sent_seconds >= _LATE_SECONDS
        return "at once" if late and seen.ending != "open" else "unknown"
    return "clumps" if per_clump >= _CLUMP_BLOCKS and pause >= _CLUMP_PAUSE_SECONDS else "single"


def judge_rhythm(seen: Observation, anatomy: Anatomy, head: Head, quote: Quote) -> Finding:
    """Report how the blocks arrived, and where to look if a proxy buffers them."""
    rhythm = measure_rhythm(seen, anatomy)
    size = near_size(rhythm.clump_bytes)
    came = f"{len(anatomy.blocks)} blocks arrived in {rhythm.clumps} clumps"
    match rhythm.kind:
        case "held":
            return Finding(
                "rhythm",
                "problem",
                f"{came} of about {size}, {rhythm.pause_seconds:.1f} s apart, which end inside blocks",
                "a buffer on the way sends only when it is full: events arrive late, and part of the last one waits for the next clump",
                advice(head, quote),
            )
        case "at once":
            wait = anatomy.clumps[0].begin - seen.sent_seconds
            return Finding(
                "rhythm",
                "problem",
                f"all {len(anatomy.blocks)} blocks arrived at once, after {wait:.1f} s, and then the response ended",
                "the whole response was buffered before it was sent: it does not stream at all",
                advice(head, quote),
            )
        case "clumps":
            return Finding(
                "rhythm",
                "warning",
                f"{came} of about {rhythm.blocks_per_clump:g} blocks and {size}, {rhythm.pause_seconds:.1f} s apart",
                f"either the source sends in batches, or a buffer delays events by up to {rhythm.pause_seconds:.1f} s",
                advice(head, quote, rhythm.pause_seconds),
            )
        case "single":
            return Finding("rhythm", "ok", f"{came}: one by one, median pause {rhythm.pause_seconds:.2g} s")
        case _:
            return _undecided(seen, anatomy)


def _undecided(seen: Observation, anatomy: Anatomy) -> Finding:
    count = len(anatomy.blocks)
    if count >= _LEAST_BLOCKS and seen.ending != "open":
        return Finding(
            "rhythm", "ok", f"all {count} blocks arrived at once, {anatomy.clumps[0].begin - seen.sent_seconds:.2g} s after the request"
        )
    return Finding(
        "rhythm",
        "note",
        f"{count} blocks arrived" + (" at once" if count > 1 else ""),
        "too few to tell whether they arrive one by one",
        "listen longer (--seconds), or publish events meanwhile",
    )


def near_size(size: int) -> str:
    """Return a size as text, with the common buffer size that it is close to."""
    for usual in _BUFFER_SIZES:
        if abs(size - usual) <= _NEAR * usual:
            return f"{size} bytes (a buffer of {usual}?)"
    return f"{size} bytes"
