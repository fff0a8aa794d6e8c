"""The head of a stream that may be kept: its request, its owner, and the fields of its answer."""

import hashlib
import time
from collections.abc import Iterator
from urllib.parse import parse_qsl

from aiohttp import web
from multidict import CIMultiDict

from ...access.exchange import Exchange
from ...http.asking import UpstreamAnswer
from ...http.headers import apply_rules, stream_fields
from ...http.incoming import Incoming
from ...policy.last_event_id import without_last_event_id
from ...policy.paths import STREAMS_PATH
from ...policy.resume import shorten_name
from ...policy.routes import Route
from ...policy.trusted_proxies import client_network
from .store import StreamHead

_OWNER_BYTES = 8


def head_of(request: web.BaseRequest, exchange: Exchange, id: str) -> StreamHead:
    """Return the head of the stream that this request may open, before its body and its answer are known."""
    route = exchange.route
    credentials = credentials_of(request, route, exchange.target)
    return StreamHead(
        id=id,
        route=route.path,
        method=request.method,
        target=without_last_event_id(exchange.target),
        credentials=credentials,
        body=b"",
        key=private_key(request.headers.get("Idempotency-Key", ""), credentials, route, exchange.client),
        fields=(),
        opened_at=time.time(),
        owner=digest_of_owner(exchange.owner),
    )


def digest_of_owner(owner: str) -> str:
    """Return a short digest of a client, which owns its streams in memory and on disk. It is empty for no client."""
    return hashlib.blake2b(owner.encode("utf-8", "surrogatepass"), digest_size=_OWNER_BYTES).hexdigest() if owner else ""


def credentials_of(request: web.BaseRequest, route: Route, target: str) -> bytes:
    """Return a digest of the authenticated subject, otherwise of the credentials in the request. It is empty without any."""
    if isinstance(request, Incoming) and request.caller is not None:
        return request.caller.credentials
    given = [f"{name.title()}:{value}" for name in route.identifying_fields for value in request.headers.getall(name, ())]
    given += _cookies(request, route)
    given += [f"?{name}={value}" for name, value in _parameters(target) if name in route.credential_parameters]
    return hashlib.sha256("\n".join(given).encode("utf-8", "surrogateescape")).digest() if given else b""


def _cookies(request: web.BaseRequest, route: Route) -> Iterator[str]:
    for field in request.headers.getall("Cookie", ()):
        if route.credential_cookies == "all":
            yield f"Cookie:{field}"
        else:
            cookies = (cookie.strip() for cookie in field.split(";"))
            yield from (f"Cookie:{cookie}" for cookie in cookies if cookie.partition("=")[0] in route.credential_cookies)


def _parameters(target: str) -> list[tuple[str, str]]:
    return parse_qsl(target.partition("?")[2], keep_blank_values=True, errors="surrogateescape")


def private_key(key: str, credentials: bytes, route: Route, client: str) -> str:
    """Return the lookup key for the Idempotency-Key or the name of a request. Without credentials a stranger may know it, or guess it."""
    if not key or credentials or route.anonymous_keys == "anybody":
        return key
    return f"{client_network(client)} {key}" if route.anonymous_keys == "by-address" else ""


def shown_name(head: StreamHead) -> str:
    """Return the shortened name of an answer, without the client's network that `private_key` puts before it."""
    name = head.name.partition(" ")[2] if not head.credentials and " " in head.name else head.name
    return shorten_name(name)


def kept_fields(upstream: UpstreamAnswer, id: str, route: Route) -> CIMultiDict[str]:
    """Return the header fields of a kept stream, for all its clients."""
    fields = stream_fields(upstream.headers, ("Set-Cookie", "Content-Length", "Content-Encoding", "Date", "Age"))
    fields["Stream-Id"] = id
    fields.setdefault("Location", (route.resume and route.resume.location_of(fields)) or f"{STREAMS_PATH}{id}")
    if "Access-Control-Allow-Origin" in fields:
        fields.add("Access-Control-Expose-Headers", "Stream-Id, Location")
    apply_rules(fields, route.response_headers)
    return fields
