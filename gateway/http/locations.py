"""Rewrite upstream addresses in answers to the gateway's address as used by the client, as nginx does by default."""

import re
from functools import lru_cache
from urllib.parse import SplitResult, urlsplit

from aiohttp import web
from multidict import CIMultiDict, istr

from ..policy.routes import Route

_LOCATION, _CONTENT_LOCATION, _REFRESH, _HOST = map(istr, ("Location", "Content-Location", "Refresh", "Host"))
_FORWARDED_HOST, _FORWARDED_PROTO = istr("X-Forwarded-Host"), istr("X-Forwarded-Proto")
_ORIGIN = re.compile(r"(?:(https?):)?//([^/?#@]*)(?=[/?#]|\Z)", re.IGNORECASE)
_DELAY = re.compile(r"[ \t]*[0-9.]+[ \t]*[;,]?[ \t]*(?:url[ \t]*=[ \t]*)?[\"']?", re.IGNORECASE)  # the part of Refresh before the address
_DEFAULT_PORTS = {"http": "80", "https": "443"}


def rewrite_locations(fields: CIMultiDict[str], route: Route, request: web.BaseRequest) -> None:
    """Rewrite `Location`, `Content-Location` and `Refresh` if they begin with the address of the route's upstream."""
    for name in (_LOCATION, _CONTENT_LOCATION, _REFRESH):
        if name in fields:
            values = fields.popall(name)
            begins = [match.end() if name is _REFRESH and (match := _DELAY.match(value)) else 0 for value in values]
            fields.extend(
                (name, value[:begin] + _rewrite(value[begin:], route, request)) for value, begin in zip(values, begins, strict=True)
            )


def _rewrite(address: str, route: Route, request: web.BaseRequest) -> str:
    origin = _ORIGIN.match(address)
    if origin is None or not route.upstream:
        return address
    upstream = _split(route.upstream)
    scheme = (origin[1] or upstream.scheme).lower()
    names = [upstream.netloc, *(value for name, value in route.request_headers.items() if name.lower() == "host")]
    if route.preserve_host:
        names.append(request.headers.get(_HOST, ""))
    if _host_and_port(origin[2], scheme) not in [_host_and_port(name, upstream.scheme) for name in names]:
        return address
    rest = address[origin.end() :]
    if not rest.startswith(upstream.path) or rest[len(upstream.path) :][:1] not in ("", "/", "?", "#"):
        return address  # outside the route's upstream path
    rest = rest[len(upstream.path) :]
    asked = _asked_origin(request)
    return asked + rest if asked or rest.startswith("/") else "/" + rest


@lru_cache(maxsize=1024)
def _split(upstream: str) -> SplitResult:
    return urlsplit(upstream)


def _host_and_port(authority: str, scheme: str) -> tuple[str, str]:
    """Return host and port. The scheme does not matter, because upstreams behind a TLS proxy use https in their addresses."""
    host, colon, port = authority.lower().rpartition(":")
    if not colon or port.endswith("]"):
        host, port = authority.lower(), ""
    return host, port or _DEFAULT_PORTS[scheme]


def _asked_origin(request: web.BaseRequest) -> str:
    """Return the scheme and host that the client used, at a trusted proxy if there is one; empty without a host.

    `X-Forwarded-…` fields from other peers have been removed.
    """
    headers = request.headers
    host = headers.get(_FORWARDED_HOST, headers.get(_HOST, "")).partition(",")[0].strip()
    scheme = headers.get(_FORWARDED_PROTO, request.scheme).partition(",")[0].strip().lower()
    return f"{scheme if scheme in _DEFAULT_PORTS else request.scheme}://{host}" if host else ""
