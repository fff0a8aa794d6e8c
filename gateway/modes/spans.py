"""Report requests to a trace collector, without queries, header fields and bodies."""

from urllib.parse import urlsplit

from service.tracing import Attributes, Span, Tracing

from ..access.exchange import Exchange
from ..http.incoming import Incoming
from ..streams.relay import CUT, Relay

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"))
_OTHER = "_OTHER"  # the conventions' name for other methods, of which clients may invent any number


def serve(tracing: Tracing, request: Incoming, exchange: Exchange) -> Span:
    """Start the span of an admitted request; `finish` ends it."""
    method = request.method if request.method in _METHODS else _OTHER
    attributes: Attributes = {
        "http.request.method": method,
        "http.route": exchange.route_path,
        "url.path": exchange.shown_path,
        "url.scheme": request.scheme,
        "client.address": request.client,
        "eventstream.request_id": request.request_id,
    }
    return tracing.serve(f"{'HTTP' if method == _OTHER else method} {exchange.route_path}", request.headers, attributes)


def finish(exchange: Exchange) -> None:
    """End the span of a request with its outcome."""
    if exchange.span is None:
        return
    attributes: dict[str, str | int | float | bool] = {"http.route": exchange.route_path}
    if exchange.status:  # else the client disconnected before an answer
        attributes["http.response.status_code"] = exchange.status
    error = ""
    if exchange.refused is not None:
        attributes["error.type"] = exchange.refused
    if exchange.status >= 500:
        error = f"answered {exchange.status}"
    relay = exchange.relay
    if relay is not None:
        attributes["eventstream.bytes"] = relay.bytes_out
        if exchange.event_stream:
            attributes["eventstream.mode"] = exchange.mode
            attributes["eventstream.verdict"] = relay.verdict
            attributes["eventstream.blocks"] = relay.blocks_out
            attributes["eventstream.heartbeats"] = relay.heartbeats
        if relay.verdict == CUT:
            attributes["error.type"] = CUT
            error = relay.reason or CUT
    exchange.span.end(attributes, error)


def ask_upstream(exchange: Exchange) -> Span | None:
    """Start the span of a request to the upstream of `exchange`. Return None without tracing."""
    if exchange.span is None:
        return None
    method = exchange.method if exchange.method in _METHODS else _OTHER
    parts = urlsplit(exchange.route.upstream)
    attributes: Attributes = {
        "http.request.method": method,
        "url.full": f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}{exchange.shown_path}",
        "server.address": parts.hostname or "",
        "eventstream.request_id": exchange.request_id,
    }
    return exchange.span.tracing.ask(method, attributes, exchange.span)


def answered(span: Span | None, exchange: Exchange) -> None:
    """End the span of a request to the upstream whose answer became the exchange's answer."""
    if span is None:
        return
    if exchange.refused is not None:
        span.end({"error.type": exchange.refused}, exchange.refused)
    else:
        end_answered(span, exchange.status, {"eventstream.bytes": exchange.relay.bytes_in} if isinstance(exchange.relay, Relay) else {})


def end_answered(span: Span | None, status: int, attributes: Attributes) -> None:
    """End the span of a request to an upstream that answered with `status`."""
    if span is not None:
        answer: Attributes = {"http.response.status_code": status} if status else {"error.type": "left"}
        span.end({**answer, **attributes}, f"answered {status}" if status >= 400 else "")
