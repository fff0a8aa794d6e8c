"""Compare one stream on two paths, to find what the proxies on the second path do to it."""

import difflib
import itertools
import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from .alignment import Pairing, align
from .anatomy import Anatomy, Block
from .findings import Finding, Severity
from .observation import Head, Observation
from .quoting import Quote
from .rhythm import measure_rhythm
from .suspects import advice

_LATE_SECONDS = 0.5
_VERY_LATE_SECONDS = 2.0
_MOST_SHOWN = 5
_WORST_SHARE = 0.95
_LEAST_BLOCKS = 3
_BYTES_BEFORE, _BYTES_AFTER = 12, 20  # of the first byte that differs
_STRIDE_BYTES = 4096

_OF_THE_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "date", "proxy-connection", "te", "trailer", "upgrade", "alt-svc"}
"""Fields that differ for each connection."""
_MATTERS: dict[str, tuple[Severity, str]] = {
    "content-type": ("problem", "clients and proxies no longer recognize the stream"),
    "content-encoding": ("problem", "a proxy compresses the stream, and buffers bytes to do so"),
    "content-length": ("problem", "a proxy buffered the whole response first"),
    "cache-control": ("warning", "caches and buffers downstream get other instructions"),
    "x-accel-buffering": ("note", "an nginx downstream is not told to stop buffering; nginx itself removes the field"),
}


def compare_heads(direct: Head, through: Head, quote: Quote) -> Iterator[Finding]:
    """Compare status, version and fields."""
    if direct.status != through.status:
        shown = f"{direct.status} became {through.status}"
        yield Finding("status through", "problem", shown, "a proxy replaced the answer", "check the proxy's log")
    if direct.version != through.version:
        shown = f"HTTP/{direct.version[0]}.{direct.version[1]} became HTTP/{through.version[0]}.{through.version[1]}"
        yield Finding("version through", "note", shown, "the response is framed differently", "nothing, unless it is older than 1.1")
    others = []
    for name in dict.fromkeys(key.decode("latin-1").lower() for key, _ in (*direct.fields, *through.fields)):
        before, after = direct.get(name), through.get(name)
        if before == after or name in _OF_THE_CONNECTION:
            continue
        change = f"{quote(name)}: {_value(before, quote)} became {_value(after, quote)}"
        if name in _MATTERS and not (name == "x-accel-buffering" and (after or "").lower() == "no"):
            severity, means = _MATTERS[name]
            yield Finding("header through", severity, change, means, "look for this field in the proxy's configuration")
        else:
            others.append(change)
    if others:
        yield Finding("header through", "ok", "; ".join(others))


def _value(value: str | None, quote: Quote) -> str:
    return "nothing" if value is None else quote(value, 60) if value else "an empty value"


@dataclass(frozen=True, slots=True)
class Difference:
    """The first byte at which two byte strings differ, with its surroundings in each."""

    offset: int
    direct_hex: str
    direct_text: str
    through_hex: str
    through_text: str


def first_difference(direct: bytes, through: bytes) -> int | None:
    """Return the offset of the first byte that differs, None if one string is a prefix of the other."""
    common = min(len(direct), len(through))
    for start in range(0, common, _STRIDE_BYTES):
        end = min(start + _STRIDE_BYTES, common)
        if direct[start:end] != through[start:end]:
            return next(at for at in range(start, end) if direct[at] != through[at])
    return None


def show_difference(direct: bytes, through: bytes, quote: Quote) -> Difference:
    """Return the first difference of two byte strings that differ in content or length."""
    offset = first_difference(direct, through)
    if offset is None:
        offset = min(len(direct), len(through))
    parts = [quote.mask(side)[max(0, offset - _BYTES_BEFORE) : offset + _BYTES_AFTER] for side in (direct, through)]
    (direct_hex, direct_text), (through_hex, through_text) = [
        (part.hex(" "), quote(part, 4 * (_BYTES_BEFORE + _BYTES_AFTER))) for part in parts
    ]
    return Difference(offset, direct_hex, direct_text, through_hex, through_text)


@dataclass(frozen=True, slots=True)
class Path:
    """One path to the stream and what arrived on it."""

    seen: Observation
    anatomy: Anatomy


@dataclass(frozen=True, slots=True)
class Alteration:
    """A block or a head that was altered."""

    what: str
    difference: Difference | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Changes that the second path made."""

    findings: tuple[Finding, ...]
    alterations: tuple[Alteration, ...]
    delays: tuple[float, ...] = ()
    """Delay in seconds of each block that arrived on both paths after both were open, negative if earlier on the second path."""


def compare(direct: Path, through: Path, quote: Quote) -> Comparison:
    """Compare two paths that were recorded at the same time."""
    findings: list[Finding] = []
    alterations: list[Alteration] = []
    if direct.seen.head is None or through.seen.head is None:
        missing = "the direct path" if direct.seen.head is None else "the path through"
        findings.append(
            Finding("through", "problem", f"{missing} got no answer", "there is nothing to compare", "see that path's own findings")
        )
        return Comparison(tuple(findings), ())
    findings += compare_heads(direct.seen.head, through.seen.head, quote)
    if direct.seen.head.raw() != through.seen.head.raw():
        difference = show_difference(direct.seen.head.raw(), through.seen.head.raw(), quote)
        alterations.append(Alteration("head", difference))
    pairing = align(direct.anatomy.blocks, through.anatomy.blocks)
    if pairing is None:
        findings.append(_nothing_in_common(direct, through))
        return Comparison(tuple(findings), tuple(alterations))
    changed = [(one, other) for one, other in pairing.pairs if _bare(one) != _bare(other)]
    alterations += itertools.islice(_alterations(changed, pairing, quote), _MOST_SHOWN)
    findings += [_judge_bytes(pairing, changed), _judge_comments(direct, through), *_judge_beginnings(direct.anatomy, through.anatomy)]
    delays = tuple(_delays(direct, through, pairing))
    findings += [*_judge_delay(delays, through, quote), *_judge_rhythms(direct, through, delays, quote)]
    return Comparison(tuple(findings), tuple(alterations), delays)


def _bare(block: Block) -> bytes:
    """Return the block without comments and `retry`, which belong to the connection (see _judge_beginnings)."""
    lines = block.raw.splitlines(keepends=True)
    return b"".join(line for line in lines if line[:1] != b":" and not line.startswith(b"retry:"))


def _nothing_in_common(direct: Path, through: Path) -> Finding:
    ours, theirs = (sum(bool(block.names()) for block in path.anatomy.blocks) for path in (direct, through))
    counts = f"{ours} blocks on the direct path, {theirs} through"
    if not ours or min(ours, theirs) < _LEAST_BLOCKS:
        return Finding(
            "bytes", "note", f"{counts}, none in common", "too few to compare", "listen longer (--seconds), or publish events meanwhile"
        )
    means = "no block arrived on both paths: these are different streams, or every block was altered or held back"
    return Finding(
        "bytes",
        "problem",
        counts + ", none in common",
        means,
        "check that both URLs name the same stream; compare the heads and the first blocks",
    )


def _judge_bytes(pairing: Pairing, changed: list[tuple[Block, Block]]) -> Finding:
    same = len(pairing.pairs) - len(changed)
    shown = f"{len(pairing.pairs)} blocks arrived on both paths, {same} of them unchanged"
    if pairing.skipped_direct or pairing.skipped_through:
        shown += f" (the paths began {max(pairing.skipped_direct, pairing.skipped_through)} blocks apart)"
    parts = [
        f"{len(part)} {word}" for word, part in (("altered", changed), ("missing", pairing.removed), ("inserted", pairing.inserted)) if part
    ]
    if not parts:
        return Finding("bytes", "ok", shown)
    means = "a proxy treats the stream as text and rewrites it"
    do = "configure the proxy to pass text/event-stream through unchanged, or replace it"
    return Finding("bytes", "problem", f"{shown}; {', '.join(parts)}", means, do)


def _alterations(changed: list[tuple[Block, Block]], pairing: Pairing, quote: Quote) -> Iterator[Alteration]:
    for one, other in changed:
        name = f"block at byte {one.offset} of the direct path, {other.offset} of the other: {_line_change(one, other, quote)}"
        yield Alteration(name, show_difference(_bare(one), _bare(other), quote))
    for word, blocks in (("missing", pairing.removed), ("inserted", pairing.inserted)):
        for block in blocks:
            yield Alteration(f"block at byte {block.offset}, {word}: {quote(block.raw)}")


def _line_change(one: Block, other: Block, quote: Quote) -> str:
    """Describe which lines were added or removed, or that only the line ends differ."""
    before, after = ([line for line in block.lines() if line[:1] != b":"] for block in (one, other))
    if before == after:
        return "different line ends"
    parts = []
    for action, begin, end, begin_after, end_after in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if action in ("delete", "replace"):
            parts.append("without " + quote(b"\n".join(before[begin:end]), 40))
        if action in ("insert", "replace"):
            parts.append("with " + quote(b"\n".join(after[begin_after:end_after]), 40))
    return ", ".join(parts[:4])


def _judge_comments(direct: Path, through: Path) -> Finding:
    before, after = len(direct.anatomy.comments), len(through.anatomy.comments)
    if before and not after:
        means = "a proxy drops heartbeats: to the client a silent stream looks dead"
        return Finding(
            "comments",
            "warning",
            f"{before} on the direct path, none through",
            means,
            "configure the proxy to pass comments, or to send heartbeats",
        )
    return Finding("comments", "ok", f"{before} on the direct path, {after} through; clients do not see them")


def _judge_beginnings(direct: Anatomy, through: Anatomy) -> Iterator[Finding]:
    """Compare what concerns the stream as a whole: `retry` and a byte order mark."""
    before, after = direct.reconnection_time, through.reconnection_time
    if before != after:
        shown = " on the direct path, ".join("none" if value is None else f"{value} ms" for value in (before, after)) + " through"
        means = "a disconnected client reconnects after a different delay; a source may send retry only at the start of a connection"
        yield Finding(
            "retry through", "note", shown, means, "make the proxy send retry to each client, or the source send it with each event"
        )
    if direct.begins_with_byte_order_mark != through.begins_with_byte_order_mark:
        what = "dropped" if direct.begins_with_byte_order_mark else "inserted"
        means = "browsers drop it; other clients treat it as part of the first field's name"
        yield Finding("byte order mark through", "ok" if what == "dropped" else "warning", what, means, "remove the byte order mark")


def _delays(direct: Path, through: Path, pairing: Pairing) -> Iterator[float]:
    """Yield the delays of blocks that arrived after both heads; earlier blocks may be a replay. If there are none, yield all delays."""
    assert direct.seen.head is not None
    assert through.seen.head is not None
    begin = max(direct.seen.head.seconds, through.seen.head.seconds)
    late = [(one, other) for one, other in pairing.pairs if one.seconds > begin or len(pairing.pairs) < 2]
    for one, other in late or pairing.pairs:
        yield other.seconds - one.seconds


def _judge_delay(delays: tuple[float, ...], through: Path, quote: Quote) -> Iterator[Finding]:
    if not delays:
        return
    ordered = sorted(delays)
    middle, worst = statistics.median(ordered), ordered[round((len(ordered) - 1) * _WORST_SHARE)]
    shown = f"median {_milliseconds(middle)}, 95th percentile {_milliseconds(worst)}, maximum {_milliseconds(ordered[-1])}"
    if worst < _LATE_SECONDS:
        yield Finding("delay", "ok", shown)
        return
    assert through.seen.head is not None
    means = "a proxy delays events"
    yield Finding("delay", "problem" if middle >= _VERY_LATE_SECONDS else "warning", shown, means, advice(through.seen.head, quote))


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def _judge_rhythms(direct: Path, through: Path, delays: tuple[float, ...], quote: Quote) -> Iterator[Finding]:
    before, after = measure_rhythm(direct.seen, direct.anatomy), measure_rhythm(through.seen, through.anatomy)
    if after.is_buffered_beside(before):
        assert through.seen.head is not None
        shown = f"{before.clumps} clumps on the direct path, {after.clumps} through"
        means = "a proxy buffers blocks before it sends them"
        severity: Severity = "problem" if after.kind != "clumps" or statistics.median(delays) >= _LATE_SECONDS else "warning"
        yield Finding("buffering", severity, shown, means, advice(through.seen.head, quote, after.pause_seconds))
    if direct.seen.ending != through.seen.ending:
        means = "a proxy ends the response differently: clients cannot tell a cut stream from a complete one, or are cut off early"
        shown = f"{direct.seen.ending} on the direct path, {through.seen.ending} through"
        ends_well = through.seen.ending == "open" or (direct.seen.ending == "cut" and through.seen.ending == "reset")
        yield Finding("ends", "note" if ends_well else "problem", shown, means, "compare when each path ended")
