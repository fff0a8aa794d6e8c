"""From what was seen of one path to all that can be said about it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from .anatomy import FIELDS, Anatomy, dissect
from .answer import judge_answer
from .content import judge_content
from .findings import Finding, Severity
from .lifetime import judge_lifetime, longest_silence
from .observation import Observation
from .quoting import Quote
from .resuming import Resumption, judge_ids, judge_resumption
from .rhythm import judge_rhythm, measure_rhythm

_OK = 200
_EVENT_STREAM = "text/event-stream"
_LATE = "browsers, which offer gzip, get events late: the compressor waits until it has enough"
_NONE = "no compression for text/event-stream"
_FLUSH = f"{_NONE}, or a flush after every event"


@dataclass(frozen=True)
class Examination:
    """All that was seen of one path to a stream."""

    url: str
    """As it may be shown."""
    seen: Observation
    compressed: Observation | None = None
    """The answer to the same question with compression offered, None when that was not asked."""
    resumption: Resumption | None = None
    """The answer to the same question with a last event ID, None when that was not asked."""
    protocol: str = ""
    """What the server chose when HTTP/2 was offered, empty when that was not asked."""

    @cached_property
    def anatomy(self) -> Anatomy:
        """The parts of what came first."""
        return dissect(self.seen.body)


def diagnose(examination: Examination, quote: Quote) -> list[Finding]:
    """Gives the findings, in the order of the stream's life."""
    seen = examination.seen
    findings = list(judge_answer(seen, quote))
    findings += _judge_protocol(examination)
    head = seen.head
    if head is None or head.status != _OK:
        return findings
    anatomy = examination.anatomy
    if head.media_type() != _EVENT_STREAM and not _looks_like_events(anatomy):
        return findings
    findings += _judge_compression(examination, quote)
    findings.append(judge_rhythm(seen, anatomy, head, quote))
    findings += judge_content(anatomy, quote)
    findings.append(judge_ids(anatomy, quote))
    if examination.resumption is not None:
        findings += judge_resumption(anatomy, examination.resumption, quote)
    findings += judge_lifetime(seen, anatomy, quote)
    return findings


def _looks_like_events(anatomy: Anatomy) -> bool:
    first = anatomy.body.lstrip(b"\xef\xbb\xbf\r\n").partition(b":")[0]
    return first.decode("latin-1") in ("", *FIELDS) and bool(anatomy.body)


def _judge_protocol(examination: Examination) -> Iterator[Finding]:
    if not examination.protocol:
        return
    if examination.protocol == "h2":
        yield Finding("http/2", "ok", "offered; a browser uses it, and this report is of HTTP/1.1")
        return
    means = "browsers open six connections per host over HTTP/1.1, whichever tab they are for: the seventh stream waits for ever"
    yield Finding("http/2", "note", f"not offered ({examination.protocol})", means, "end TLS at something that speaks HTTP/2")


def _judge_compression(examination: Examination, quote: Quote) -> Iterator[Finding]:
    offered = examination.compressed
    if offered is not None:
        severity, seen, means, do = _compression(examination, offered, quote)
        yield Finding("compression offered", severity, seen, means, do)


def _compression(plain: Examination, offered: Observation, quote: Quote) -> tuple[Severity, str, str, str]:
    if offered.head is None:
        return "problem", "no answer, though there is one when it is not offered", _LATE, _FLUSH
    if offered.head.status != _OK:
        return "problem", f"status {offered.head.status}", "browsers, which offer gzip, get no stream", _NONE
    coding = quote(offered.head.coding())
    if not coding:
        return "ok", "not taken up: browsers, which offer gzip, get it as it is", "", ""
    if offered.undecodable:
        return "problem", f"{coding}: {quote(offered.failure)}", "browsers, which offer gzip, cannot read it", _NONE
    if not offered.body and plain.seen.body:
        return "problem", f"{coding}: nothing came", _LATE, _FLUSH
    before, after = measure_rhythm(plain.seen, plain.anatomy), measure_rhythm(offered, dissect(offered.body))
    if after.is_buffered_beside(before):
        return "problem", f"{coding}: {after.clumps} clumps, uncompressed {before.clumps}", _LATE, _FLUSH
    means = "events still come as they do uncompressed, but each costs a flush, and whoever is in the middle cannot frame them"
    return "note", f"{coding}, to {offered.wire_bytes / max(1, offered.size):.0%}", means, "nothing, if it is meant"


def measure(examination: Examination) -> dict[str, object]:
    """Gives the numbers behind the findings, seconds from the question on."""
    seen = examination.seen
    anatomy = examination.anatomy
    rhythm = measure_rhythm(seen, anatomy)
    head = seen.head
    return {
        "status": head.status if head else None,
        "http_version": f"{head.version[0]}.{head.version[1]}" if head else None,
        "head_seconds": _rounded(head.seconds - seen.asked_seconds) if head else None,
        "first_byte_seconds": _rounded(seen.first_byte_seconds),
        "seconds": _rounded(seen.ended_seconds - seen.asked_seconds),
        "end": seen.ending,
        "bytes": len(anatomy.body),
        "wire_bytes": seen.wire_bytes,
        "blocks": len(anatomy.blocks),
        "events": len(anatomy.events),
        "comments": len(anatomy.comments),
        "rhythm": rhythm.kind,
        "clumps": rhythm.clumps,
        "blocks_per_clump": rhythm.blocks_per_clump,
        "clump_bytes": rhythm.clump_bytes,
        "pause_seconds": _rounded(rhythm.pause_seconds),
        "longest_silence_seconds": _rounded(longest_silence(seen)),
        "retry_ms": anatomy.reconnection_time,
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)
