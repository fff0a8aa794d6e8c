"""What is known of a request whose answer may be kept."""

import hashlib
import time

from aiohttp import web

from ..exchange import Exchange
from ..incoming import Incoming
from ..last_event_id import without_last_event_id
from .store import StreamHead


def head_of(request: web.BaseRequest, exchange: Exchange, id: str) -> StreamHead:
    """Return the head of the stream that this request may open, without what its body and its answer add."""
    return StreamHead(
        id=id,
        route=exchange.route.path,
        method=request.method,
        target=without_last_event_id(exchange.target),
        credentials=credentials_of(request),
        body=b"",
        key=request.headers.get("Idempotency-Key", ""),
        fields=(),
        opened_at=time.time(),
    )


def credentials_of(request: web.BaseRequest) -> bytes:
    """Return a digest of the subject that was authenticated, else of the credentials as they came; empty without any."""
    if isinstance(request, Incoming) and request.caller is not None:
        return request.caller.credentials
    given = [f"{name}:{value}" for name in ("Authorization", "Cookie") for value in request.headers.getall(name, ())]
    return hashlib.sha256("\n".join(given).encode("utf-8", "surrogateescape")).digest() if given else b""
