"""Decide which requests share a stream."""

from collections.abc import Mapping
from urllib.parse import unquote_plus

from multidict import CIMultiDict, CIMultiDictProxy

from service.last_event_id import PARAMETERS

from ...http.accept import accepts_event_stream
from ...http.headers import VIA, apply_rules
from ...policy.last_event_id import without_last_event_id
from ...policy.routes import Route
from ...policy.target import is_utf8

_CREDENTIALS = ("authorization", "cookie")
_ALLOW_ORIGIN = "access-control-allow-origin"

Identity = tuple[tuple[str, str], ...]
"""The header fields that tell requests apart, with their values."""


def identify(method: str, headers: CIMultiDictProxy[str], route: Route) -> Identity | None:
    """Return the fields in which requests for a shared route must agree to share a stream, or None if the answer must not be shared.

    Not shared are methods other than GET, clients that do not accept an event stream, and requests with credentials that the route does not
    name: their answer is for one client only. `Origin` must agree too, because an upstream's CORS fields depend on it, unless the route
    sets `Access-Control-Allow-Origin` itself or has a table `cors`.
    """
    if method != "GET" or "Range" in headers or not accepts_event_stream(headers):
        return None
    if not route.public and any(name in headers and name not in route.share_by for name in _CREDENTIALS):
        return None
    names = [*route.share_by, *(("host",) if route.preserve_host else ())]
    if route.cors is None and not any(name.lower() == _ALLOW_ORIGIN for name in route.response_headers):
        names.append("origin")
    return tuple((name, headers[name]) for name in names if name in headers)


def share_target(target: str, route: Route) -> str | None:
    """Return the path and query of the stream that a request for `target` shares.

    They are unchanged, except that the last event ID and the route's `begin_parameters` are left out: they only say where to begin.
    Return None if one of the route's `private_parameters` makes the answer private, or if `target` is not UTF-8, which an event source
    cannot send.
    """
    if not is_utf8(target):
        return None
    path, mark, query = target.partition("?")
    if not mark:
        return target
    kept = []
    for parameter in query.split("&"):
        name = unquote_plus(parameter.partition("=")[0])
        if name in route.private_parameters:
            return None
        if name not in route.begin_parameters and name not in PARAMETERS:
            kept.append(parameter)
    return f"{path}?{'&'.join(kept)}" if kept else path


def begin_target(target: str, shared: str, id: str, headers: Mapping[str, str]) -> str:
    """Return the path and query of the upstream request for the events after `id`, or for the client's own beginning without one.

    `target` is that of the client, `shared` that of the stream. An ID in the query goes upstream in the header and in the query, for
    upstreams that only look there. With an ID in the header, the client's `begin_parameters` do not count.
    """
    if not id:
        return without_last_event_id(target)
    return shared if "Last-Event-ID" in headers else target


def request_fields(identity: Identity, route: Route, own: Mapping[str, str] | None = None) -> CIMultiDict[str]:
    """Return the header fields of the upstream request, with `own`, but without those that every event source sends."""
    fields = CIMultiDict(identity)
    fields.update(own or {})
    fields["Via"] = VIA
    apply_rules(fields, route.request_headers)
    return fields
