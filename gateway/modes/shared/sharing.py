"""Who may share a stream with whom."""

from collections.abc import Mapping
from urllib.parse import unquote_plus

from multidict import CIMultiDict, CIMultiDictProxy

from ...http.accept import accepts_event_stream
from ...http.headers import VIA, apply_rules
from ...policy.last_event_id import PARAMETERS, without_last_event_id
from ...policy.routes import Route
from ...policy.target import is_utf8

_CREDENTIALS = ("authorization", "cookie")
_ALLOW_ORIGIN = "access-control-allow-origin"

Identity = tuple[tuple[str, str], ...]
"""The header fields that tell requests apart, with their values."""


def identify(method: str, headers: CIMultiDictProxy[str], route: Route) -> Identity | None:
    """Return what a request for a shared route must agree in with another to share its stream; None if it must not be shared.

    Not shared are other methods than GET, clients that take no event stream, and credentials that the route says nothing about: what
    one client's credentials open is not for another. `Origin` tells requests apart too, because an upstream's CORS fields depend on it;
    not so where the route sets `Access-Control-Allow-Origin` itself or has a table `cors`.
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
    """Return the path and query of the stream that a request for `target` shares: without a last event ID, which says where a subscriber
    begins, and without the route's `begin_parameters`; otherwise as it came. None if one of the route's `private_parameters` makes the
    answer private, or if it is not UTF-8, which an event source cannot send."""
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
    """Return the path and query by which the upstream is asked for what follows event `id`, or for where the client begins without one.

    `target` is what the client asked for, `shared` that of the stream. An ID of the query goes upstream in both ways: in the header, and
    in the query for an upstream that only looks there. With an ID of its own header, a client's other `begin_parameters` do not count.
    """
    if not id:
        return without_last_event_id(target)
    return shared if "Last-Event-ID" in headers else target


def request_fields(identity: Identity, route: Route, own: Mapping[str, str] | None = None) -> CIMultiDict[str]:
    """Gives the header fields of the upstream request, `own` among them, beside those that every event source sends."""
    fields = CIMultiDict(identity)
    fields.update(own or {})
    fields["Via"] = VIA
    apply_rules(fields, route.request_headers)
    return fields
