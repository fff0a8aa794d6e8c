"""Answers about a kept stream without its events, and refusals."""

from collections.abc import Mapping

from aiohttp import web
from multidict import CIMultiDict

from ...access.exchange import Exchange
from ...http.problems import problem
from ...policy.refusal import Reason, Refusal
from .kept_stream import KeptStream
from .store import StoredStream

METHODS = ("GET", "HEAD", "DELETE", "OPTIONS")
"""Methods of requests for one stream."""

_NEVER_MS = 1_000_000_000
_ORIGIN_FIELDS = ("access-control-allow-origin", "access-control-allow-credentials", "vary")


AnyStream = KeptStream | StoredStream
"""A stream in memory, or one in the store."""


def origin_fields(stream: AnyStream) -> dict[str, str]:
    """Return the CORS fields of the upstream's answer, so that the pages that may read the stream may read other answers too."""
    return {name: value for name, value in stream.head.fields if name.lower() in _ORIGIN_FIELDS}


def state_fields(stream: AnyStream) -> CIMultiDict[str]:
    """Return the fields with the state of a stream."""
    blocks, viewers = (stream.blocks_received, stream.viewers) if isinstance(stream, KeptStream) else (stream.block_count, 0)
    fields = CIMultiDict({"Stream-State": stream.state, "Stream-Blocks": str(blocks), "Stream-Bytes": str(stream.size)})
    fields["Stream-Viewers"] = str(viewers)
    if blocks is None:
        del fields["Stream-Blocks"]  # unknown after a crash of the gateway, until the stream is loaded
    if stream.reason:
        fields["Stream-Reason"] = stream.reason.encode("ascii", "replace").decode()
    if "Access-Control-Allow-Origin" in CIMultiDict(stream.head.fields):
        fields["Access-Control-Expose-Headers"] = ", ".join(fields)
    return fields


def preflight_fields(stream: AnyStream) -> dict[str, str]:
    """Return the preflight fields that let the upstream's allowed pages send DELETE and Last-Event-ID."""
    if "Access-Control-Allow-Origin" not in CIMultiDict(stream.head.fields):
        return {}
    headers = "Last-Event-ID, Cache-Control, Authorization"
    return {"Access-Control-Allow-Methods": ", ".join(METHODS), "Access-Control-Allow-Headers": headers}


def nothing_more(exchange: Exchange, stream: KeptStream) -> web.Response:
    """Return an event stream that ends at once, with a `retry` of eleven days for clients that would reconnect.

    Clients that POST take a 204 for an error, and an empty stream for a lost connection. The `retry` line is not a block of its own,
    because some clients make an event of that. Twice the time still fits into the 31 bits of a JavaScript timer, which otherwise fires at
    once.
    """
    exchange.status = 200
    return web.Response(headers=CIMultiDict(stream.head.fields), body=b"retry: %d\n" % _NEVER_MS)


def no_content(exchange: Exchange, stream: AnyStream | None = None, fields: Mapping[str, str] | None = None) -> web.Response:
    """Return a 204 with `fields`, which the pages that may read the stream may read too."""
    exchange.status = 204
    headers = CIMultiDict({"Cache-Control": "no-store", "Server": "gateway"})
    headers.extend(origin_fields(stream) if stream is not None else {})
    headers.extend(fields or {})
    return web.Response(status=204, headers=headers)


def refuse(exchange: Exchange, status: int, reason: Reason, detail: str, stream: AnyStream | None = None) -> web.Response:
    """Return an error, which the pages that may read the stream may read too."""
    exchange.refuse(status, reason)
    return problem(status, detail, origin_fields(stream) if stream is not None else None, reason)


def gone(exchange: Exchange, reason: Refusal | str | None) -> web.Response:
    """Return the answer for a stream that is gone, or for which there is no memory."""
    if isinstance(reason, Refusal):
        answer = refuse(exchange, *reason)
    elif reason is None:
        answer = refuse(exchange, 404, "no-stream", "there is no such stream")
    else:
        answer = refuse(exchange, 410, "stream-gone", f"the stream is gone: {reason}")
    answer.headers["Access-Control-Allow-Origin"] = "*"  # otherwise a page takes it for a lost connection, and reconnects forever
    return answer


def other_credentials(exchange: Exchange, stream: AnyStream) -> web.Response:
    """Return the answer to a client without the credentials of the one that opened the stream."""
    return refuse(exchange, 403, "forbidden", "the stream requires the credentials with which it was opened", stream)


def other_request(exchange: Exchange, stream: KeptStream | None) -> web.Response:
    """Return the answer to a request that names the stream of another request."""
    detail = "this Idempotency-Key or Last-Event-ID belongs to a request with another body, method or path"
    return refuse(exchange, 422, "other-request", f"{detail}; send the same request, or omit the field", stream)


def unreadable(exchange: Exchange) -> web.Response:
    """Return the answer while the store cannot be read. After any other status than 503 client libraries give the answer up for good."""
    answer = refuse(exchange, 503, "store", "the store of kept answers cannot be read now; retry in a second")
    answer.headers["Access-Control-Allow-Origin"] = "*"
    return answer
