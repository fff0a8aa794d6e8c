"""Judge a response's head and when it arrived."""

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
    """Judge everything before the body."""
    head = seen.head
    if head is None:
        yield _judge_silence(seen, quote)
        return
    if seen.redirects:
        yield Finding(
            "redirects",
            "note",
            f"redirected to {', then to '.join(quote(url, 200) for url in seen.redirects)}",
            "each reconnection follows the redirects again; --header credentials are not sent to other origins",
            "give clients the final URL",
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
    waited = seen.ended_seconds - seen.sent_seconds
    if seen.ending == "silent":
        return Finding(
            "answer",
            "problem",
            f"connected, but no answer within {waited:.1f} s",
            "the source sends its head only with the first event, or a proxy buffers it until there is more to send",
            "make the source send the head at once, perhaps with a comment line; or listen longer (--seconds); then test hop by hop",
        )
    return Finding(
        "answer",
        "problem",
        f"failed after {waited:.1f} s without an answer: {quote(seen.failure, 200)}",
        "a client sees a network error and reconnects",
        "check the log of the server that listens there",
    )


def _judge_status(head: Head, quote: Quote) -> Finding:
    seen = quote(f"{head.status} {head.reason}".strip())
    if head.status == _OK:
        return Finding("status", "ok", seen)
    if head.status == _NO_CONTENT:
        return Finding("status", "note", seen, "the stream is over: an EventSource does not reconnect", "nothing, if that is intended")
    if head.status in (401, 403):
        means, do = "the request was rejected, and an EventSource gives up for good", "pass credentials with --header"
    elif head.status in (429, 500, 502, 503, 504):
        means, do = "an EventSource gives up for good", "check the server's log; a proxy answers like this when it cannot reach the source"
    else:
        means, do = "an EventSource gives up for good", "check the URL and the method"
    return Finding("status", "problem", seen, means, do)


def _judge_type(head: Head, quote: Quote) -> Finding:
    value = head.get("Content-Type")
    shown = quote(value) if value else "none"
    if head.media_type() != _EVENT_STREAM:
        means = "an EventSource rejects it and gives up for good; proxies do not know that it streams"
        return Finding("content type", "problem", shown, means, f"send Content-Type: {_EVENT_STREAM}")
    charset = (value or "").lower().partition("charset=")[2].strip("\"' ;")
    if charset and charset not in ("utf-8", "utf8"):
        return Finding("content type", "warning", shown, "event streams are always UTF-8, whatever the charset says", "encode it in UTF-8")
    return Finding("content type", "ok", shown)


def _judge_error_type(head: Head, quote: Quote) -> Finding:
    shown = f"{quote(head.get('Content-Type') or '')} on status {head.status}"
    means = "an error is not an event stream: proxies that frame it drop a body without a blank line, and SDKs show an empty error"
    return Finding("content type", "warning", shown, means, "send errors as application/json or application/problem+json")


def _judge_version(head: Head) -> Finding:
    shown = f"HTTP/{head.version[0]}.{head.version[1]}"
    if head.version < (1, 1):
        means = "only the end of the connection ends the response, so a cut response looks complete"
        return Finding(
            "http version", "warning", shown, means, "use HTTP/1.1 between proxies and the source (nginx: proxy_http_version 1.1;)"
        )
    if head.get("Content-Length") is None and (head.get("Transfer-Encoding") or "").lower() != "chunked" and head.status == _OK:
        means = "neither chunked nor with a length: only the end of the connection ends the response, so a cut response looks complete"
        return Finding("http version", "warning", shown, means, "send it with Transfer-Encoding: chunked")
    return Finding("http version", "ok", shown)


def _judge_coding(seen: Observation, head: Head, quote: Quote) -> Finding:
    coding = head.coding()
    named = head.get("Content-Encoding")
    if not coding and named is not None and named.strip().lower() != "identity":
        means = "not a registered content coding: some clients reject it, and proxies can neither frame nor share the stream"
        return Finding("compression", "warning", f"Content-Encoding: {quote(named)}", means, "omit the header field")
    if not coding:
        return Finding("compression", "ok", "none, as requested (Accept-Encoding: identity)")
    if seen.undecodable:
        means = "the body does not match Content-Encoding, or its coding is not supported: clients see garbage or an error"
        return Finding("compression", "problem", f"{quote(coding)}: {quote(seen.failure)}", means, "send it uncompressed")
    means = "the request excluded compression (Accept-Encoding: identity); clients that cannot decode it see garbage"
    return Finding("compression", "problem", f"{quote(coding)}, not requested", means, "no compression for text/event-stream")


def _judge_caching(head: Head, quote: Quote) -> Iterator[Finding]:
    for name in ("X-Cache", "CF-Cache-Status", "X-Cache-Status"):
        if "hit" in (head.get(name) or "").lower():
            means = "this is a cache hit: an old response, not the stream"
            yield Finding(
                "caching", "problem", f"{name}: {quote(head.get(name) or '')}", means, "send Cache-Control: no-store and purge the cache"
            )
    if (length := head.get("Content-Length")) is not None:
        means = "the whole body was known before it was sent: it is a document, or a proxy buffered all of it"
        yield Finding("length", "problem", f"Content-Length: {quote(length)}", means, advice(head, quote))
    control = head.get("Cache-Control") or ""
    if not {"no-cache", "no-store"} & {part.strip().lower() for part in control.split(",")}:
        means = "a cache on the way may store the stream and serve it to others"
        yield Finding(
            "caching", "note", f"Cache-Control: {quote(control)}" if control else "no Cache-Control", means, "send Cache-Control: no-cache"
        )


def _judge_time(seen: Observation, head: Head, quote: Quote) -> Finding:
    to_head = head.seconds - seen.sent_seconds
    first = seen.first_byte_seconds
    shown = f"head after {to_head:.2f} s, " + (f"first byte after {first:.2f} s" if first is not None else "no byte of the body")
    if to_head < _SLOW_HEAD_SECONDS:
        return Finding("first byte", "ok", shown)
    held = first is not None and first - to_head < _TOGETHER_SECONDS
    means = "the head arrived late" + (
        " and together with the body, as if the sender waited for the first event or a full buffer" if held else ""
    )
    do = advice(head, quote) if held else "make the source send its head before it has an event"
    return Finding("first byte", "warning", shown, means, do)
