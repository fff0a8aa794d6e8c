"""Answers about a kept stream that have none of its events."""

from collections.abc import Mapping

from aiohttp import web
from multidict import CIMultiDict

from ...access.exchange import Exchange
from .kept_stream import KeptStream
from .store import StoredStream

METHODS = ("GET", "HEAD", "DELETE", "OPTIONS")
"""What may be asked of a stream."""

_NEVER_MS = 1_000_000_000
_ORIGIN_FIELDS = ("access-control-allow-origin", "access-control-allow-credentials", "vary")


AnyStream = KeptStream | StoredStream
"""One in memory, or one in the store."""


def origin_fields(stream: AnyStream) -> dict[str, str]:
    """Gives the fields that let those pages read an answer which upstream let read the stream."""
    return {name: value for name, value in stream.head.fields if name.lower() in _ORIGIN_FIELDS}


def state_fields(stream: AnyStream) -> CIMultiDict[str]:
    """Gives the fields that say how a stream stands."""
    blocks, viewers = (stream.blocks_received, stream.viewers) if isinstance(stream, KeptStream) else (stream.block_count, 0)
    fields = CIMultiDict({"Stream-State": stream.state, "Stream-Blocks": str(blocks), "Stream-Bytes": str(stream.size)})
    fields["Stream-Viewers"] = str(viewers)
    if blocks is None:
        del fields["Stream-Blocks"]  # the gateway was killed while it ran: they are counted when it is loaded
    if stream.reason:
        fields["Stream-Reason"] = stream.reason.encode("ascii", "replace").decode()
    if "Access-Control-Allow-Origin" in CIMultiDict(stream.head.fields):
        fields["Access-Control-Expose-Headers"] = ", ".join(fields)
    return fields


def preflight_fields(stream: AnyStream) -> dict[str, str]:
    """Gives what a browser wants to know before a page that upstream allows may send a DELETE or a Last-Event-ID."""
    if "Access-Control-Allow-Origin" not in CIMultiDict(stream.head.fields):
        return {}
    headers = "Last-Event-ID, Cache-Control, Authorization"
    return {"Access-Control-Allow-Methods": ", ".join(METHODS), "Access-Control-Allow-Headers": headers}


def nothing_more(exchange: Exchange, stream: KeptStream) -> web.Response:
    """Return an event stream that ends at once and makes a client that would reconnect wait for eleven days.

    Clients that POST take a 204 for an error, and an empty stream for a lost connection. The `retry` line is no block of its own, because
    some clients make an event of that. Doubled, the time still fits into the 31 bits of a JavaScript timer, which fires at once beyond.
    """
    exchange.status = 200
    return web.Response(headers=CIMultiDict(stream.head.fields), body=b"retry: %d\n" % _NEVER_MS)


def no_content(exchange: Exchange, stream: AnyStream | None = None, fields: Mapping[str, str] | None = None) -> web.Response:
    """Gives a 204 with `fields`, also to the pages that upstream let read the stream."""
    exchange.status = 204
    headers = CIMultiDict({"Cache-Control": "no-store", "Server": "gateway"})
    headers.extend(origin_fields(stream) if stream is not None else {})
    headers.extend(fields or {})
    return web.Response(status=204, headers=headers)
