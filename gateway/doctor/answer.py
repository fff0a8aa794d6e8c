"""Judges the head of an answer, and when it came."""

from collections.abc import Iterator

from .findings import Finding
from .observation import Head, Observation
from .quoting import Quote
from .suspects import advice

_OK = 200
_NO_CONTENT = 204
_SLOW_HEAD_SECONDS = 1.5
_TOGETHER_SECONDS = 0.1
_EVENT_STREAM = "text/event-stream"


def judge_answer(seen: Observation, quote: Quote) -> Iterator[Finding]:
    """Judges all that stands before the body."""
    head = seen.head
    if head is None:
        yield _judge_silence(seen, quote)
        return
    if seen.redirects:
        yield Finding(
            "redirects",
            "note",
            f"sent on to {' and then to '.join(quote(url, 200) for url in seen.redirects)}",
            "each reconnection takes this way again; other origins get no credentials of --header",
            "give clients the last address",
        )
    yield _judge_status(head, quote)
    yield _judge_version(head)
    if head.status not in (_OK, _NO_CONTENT) and head.media_type() == _EVENT_STREAM:
        yield _judge_error_type(head, quote)
    if head.status == _OK:
        yield _judge_type(head, quote)
        yield _judge_coding(seen, head, quote)
        yield from _judge_caching(head, quote)
    yield _judge_time(seen, head, quote)


def _judge_silence(seen: Observation, quote: Quote) -> Finding:
    waited = seen.ended_seconds - seen.asked_seconds
    if seen.ending == "silent":
        return Finding(
            "answer",
            "problem",
            f"connected, but no answer within {waited:.1f} s",
            "the source sends its head only with the first event, or somebody on the way keeps it until there is more to send",
            "let the source send the head, and perhaps a comment line, at once; or listen longer (--seconds); then ask hop by hop",
        )
    return Finding(
        "answer",
        "problem",
        f"no answer, but after {waited:.1f} s: {quote(seen.failure, 200)}",
        "a client sees a network error, and comes back",
        "look into the log of whoever listens there",
    )


def _judge_status(head: Head, quote: Quote) -> Finding:
    seen = quote(f"{head.status} {head.reason}".strip())
    if head.status == _OK:
        return Finding("status", "ok", seen)
    if head.status == _NO_CONTENT:
        return Finding("status", "note", seen, "the stream is over: an EventSource does not come back", "nothing, if that is meant")
    if head.status in (401, 403):
        means, do = "whoever asks is not let in, and an EventSource gives up for good", "give credentials with --header"
    elif head.status in (429, 500, 502, 503, 504):
        means, do = "an EventSource gives up for good", "look into the log of the server; a proxy says so when it cannot reach the source"
    else:
        means, do = "an EventSource gives up for good", "check URL and method"
    return Finding("status", "problem", seen, means, do)


def _judge_type(head: Head, quote: Quote) -> Finding:
    value = head.get("Content-Type")
    shown = quote(value) if value else "none"
    if head.media_type() != _EVENT_STREAM:
        means = "an EventSource refuses it and gives up for good; proxies do not know that it streams"
        return Finding("content type", "problem", shown, means, f"send Content-Type: {_EVENT_STREAM}")
    charset = (value or "").lower().partition("charset=")[2].strip("\"' ;")
    if charset and charset not in ("utf-8", "utf8"):
        return Finding("content type", "warning", shown, "event streams are UTF-8, whatever the charset says", "send it in UTF-8")
    return Finding("content type", "ok", shown)


def _judge_error_type(head: Head, quote: Quote) -> Finding:
    shown = f"{quote(head.get('Content-Type') or '')} on status {head.status}"
    means = "an error is no event stream: proxies that frame it drop a body without a blank line, and SDKs show an empty error"
    return Finding("content type", "warning", shown, means, "answer errors as application/json or application/problem+json")


def _judge_version(head: Head) -> Finding:
    shown = f"HTTP/{head.version[0]}.{head.version[1]}"
    if head.version < (1, 1):
        means = "only the end of the connection ends the answer: one that was cut looks complete"
        return Finding("http version", "warning", shown, means, "let proxies speak HTTP/1.1 to the source (nginx: proxy_http_version 1.1;)")
    if head.get("Content-Length") is None and (head.get("Transfer-Encoding") or "").lower() != "chunked" and head.status == _OK:
        means = "neither chunked nor with a length, only the end of the connection ends it: one that was cut looks complete"
        return Finding("http version", "warning", shown, means, "send it with Transfer-Encoding: chunked")
    return Finding("http version", "ok", shown)


def _judge_coding(seen: Observation, head: Head, quote: Quote) -> Finding:
    coding = head.coding()
    named = head.get("Content-Encoding")
    if not coding and named is not None and named.strip().lower() != "identity":
        means = "no such content coding is registered: some clients refuse it, and proxies neither frame nor share what they cannot read"
        return Finding("compression", "warning", f"Content-Encoding: {quote(named)}", means, "leave the field out")
    if not coding:
        return Finding("compression", "ok", "none, as asked (Accept-Encoding: identity)")
    if seen.undecodable:
        means = "the body is not what Content-Encoding says, or in a coding that nobody knows: clients see garbage or an error"
        return Finding("compression", "problem", f"{quote(coding)}: {quote(seen.failure)}", means, "send it uncompressed")
    means = "it was asked for uncompressed (Accept-Encoding: identity); clients that cannot undo it see garbage"
    return Finding("compression", "problem", f"{quote(coding)}, unasked", means, "no compression for text/event-stream")


def _judge_caching(head: Head, quote: Quote) -> Iterator[Finding]:
    for name in ("X-Cache", "CF-Cache-Status", "X-Cache-Status"):
        if "hit" in (head.get(name) or "").lower():
            means = "this is an old answer from a cache, not the stream"
            yield Finding(
                "caching", "problem", f"{name}: {quote(head.get(name) or '')}", means, "send Cache-Control: no-store, purge the cache"
            )
    if (length := head.get("Content-Length")) is not None:
        means = "somebody knew the whole answer before sending it: it is a document, or a buffer made it one"
        yield Finding("length", "problem", f"Content-Length: {quote(length)}", means, advice(head, quote))
    control = head.get("Cache-Control") or ""
    if not {"no-cache", "no-store"} & {part.strip().lower() for part in control.split(",")}:
        means = "a cache on the way may keep the stream and give it to others"
        yield Finding(
            "caching", "note", f"Cache-Control: {quote(control)}" if control else "no Cache-Control", means, "send Cache-Control: no-cache"
        )


def _judge_time(seen: Observation, head: Head, quote: Quote) -> Finding:
    to_head = head.seconds - seen.asked_seconds
    first = seen.first_byte_seconds
    shown = f"head after {to_head:.2f} s, " + (f"first byte after {first:.2f} s" if first is not None else "no byte of the body")
    if to_head < _SLOW_HEAD_SECONDS:
        return Finding("first byte", "ok", shown)
    held = first is not None and first - to_head < _TOGETHER_SECONDS
    means = "the head came late" + (
        " and together with the body, as when somebody waits for the first event, or for a full buffer" if held else ""
    )
    do = advice(head, quote) if held else "let the source send its head before it has an event"
    return Finding("first byte", "warning", shown, means, do)
