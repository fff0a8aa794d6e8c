"""Turn the observations of one path into findings."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from .anatomy import FIELDS, Anatomy, dissect
from .answer import judge_answer
from .content import judge_content
from .conventions import Attempt, judge_conventions
from .findings import Finding, Severity
from .lifetime import judge_lifetime, longest_silence
from .observation import Observation
from .quoting import Quote
from .resuming import Resumption, judge_ids, judge_resumption
from .rhythm import judge_rhythm, measure_rhythm

_OK = 200
_EVENT_STREAM = "text/event-stream"
_LATE = "browsers offer gzip, so they get events late: the compressor waits until its buffer is full"
_NONE = "no compression for text/event-stream"
_FLUSH = f"{_NONE}, or a flush after every event"


@dataclass(frozen=True)
class Examination:
    """The observations of one path to a stream."""

    url: str
    """The URL without its secrets."""
    seen: Observation
    compressed: Observation | None = None
    """The answer to the same request with compression offered, None if it was not sent."""
    resumption: Resumption | None = None
    """The answer to the same request with a last event ID, None if it was not sent."""
    attempts: Sequence[Attempt] | None = None
    """The requests that may resume the answer to a POST, None if they were not sent."""
    protocol: str = ""
    """The protocol that the server chose when HTTP/2 was offered, empty if it was not offered."""

    @cached_property
    def anatomy(self) -> Anatomy:
        """The dissected body of the first answer."""
        return dissect(self.seen.body)


def diagnose(examination: Examination, quote: Quote) -> list[Finding]:
    """Return the findings, in the order of a stream's life."""
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
    if examination.attempts is not None:
        findings.append(judge_conventions(anatomy, examination.attempts))
    findings += judge_lifetime(seen, anatomy, quote)
    return findings


def _looks_like_events(anatomy: Anatomy) -> bool:
    first = anatomy.body.lstrip(b"\xef\xbb\xbf\r\n").partition(b":")[0]
    return first.decode("latin-1") in ("", *FIELDS) and bool(anatomy.body)


def _judge_protocol(examination: Examination) -> Iterator[Finding]:
    if not examination.protocol:
        return
    if examination.protocol == "h2":
        yield Finding("http/2", "ok", "offered, so browsers use it; this report covers HTTP/1.1")
        return
    means = "over HTTP/1.1 a browser opens at most six connections per host, in all tabs together: a seventh stream never opens"
    yield Finding("http/2", "note", f"not offered ({examination.protocol})", means, "terminate TLS at a server that supports HTTP/2")


def _judge_compression(examination: Examination, quote: Quote) -> Iterator[Finding]:
    offered = examination.compressed
    if offered is not None:
        severity, seen, means, do = _compression(examination, offered, quote)
        yield Finding("compression offered", severity, seen, means, do)


def _compression(plain: Examination, offered: Observation, quote: Quote) -> tuple[Severity, str, str, str]:
    if offered.head is None:
        return "problem", "no answer, though there is one without compression", _LATE, _FLUSH
    if offered.head.status != _OK:
        return "problem", f"status {offered.head.status}", "browsers offer gzip, so they get no stream", _NONE
    coding = quote(offered.head.coding())
    if not coding:
        return "ok", "not used: browsers offer gzip and get the stream uncompressed", "", ""
    if offered.undecodable:
        return "problem", f"{coding}: {quote(offered.failure)}", "browsers offer gzip, so they get a stream that they cannot read", _NONE
    if not offered.body and plain.seen.body:
        return "problem", f"{coding}: no byte arrived", _LATE, _FLUSH
    before, after = measure_rhythm(plain.seen, plain.anatomy), measure_rhythm(offered, dissect(offered.body))
    if after.is_buffered_beside(before):
        return "problem", f"{coding}: {after.clumps} clumps, uncompressed {before.clumps}", _LATE, _FLUSH
    means = "events arrive as promptly as uncompressed, but each costs a flush, and proxies cannot frame them"
    return "note", f"{coding}, to {offered.wire_bytes / max(1, offered.size):.0%}", means, "nothing, if that is intended"


def measure(examination: Examination) -> dict[str, object]:
    """Return the numbers behind the findings, times in seconds since the request."""
    seen = examination.seen
    anatomy = examination.anatomy
    rhythm = measure_rhythm(seen, anatomy)
    head = seen.head
    return {
        "status": head.status if head else None,
        "http_version": f"{head.version[0]}.{head.version[1]}" if head else None,
        "head_seconds": _rounded(head.seconds - seen.sent_seconds) if head else None,
        "first_byte_seconds": _rounded(seen.first_byte_seconds),
        "seconds": _rounded(seen.ended_seconds - seen.sent_seconds),
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
