"""End open streams whose API key was revoked."""

from collections.abc import Iterable

from ..policy.paths import STREAMS_PATH
from ..policy.route_table import RouteTable
from ..policy.routes import Route
from .exchange import Exchange
from .expiry import end_at_expiry

REVOKED = "revoked"
"""The route no longer has the API key that opened the stream, or the key no longer grants it."""


def end_revoked(exchanges: Iterable[Exchange], routes: RouteTable) -> None:
    """End event streams, after a complete block, that their API key would no longer open.

    A stream continues if its route is gone or no longer authenticates, or if it was opened with a token, which has its own expiry.
    A stream handed off by another worker is ended there.
    """
    current = {route.path: route for route in routes.routes}
    for exchange in tuple(exchanges):
        route = current.get(exchange.route.path) if not exchange.handed_over else None
        if route is not None and not _is_good(exchange, route):
            end_at_expiry(exchange, 0.0, REVOKED)


def _is_good(exchange: Exchange, route: Route) -> bool:
    if exchange.caller is None or not exchange.caller.key or route.auth is None or route.auth.kind == "none":
        return True
    found = next((key for key in route.auth.keys if key.digest == exchange.caller.key), None)
    if found is None:
        return False
    return found.allowed is None or exchange.target.startswith(STREAMS_PATH) or found.allowed.allows(exchange.method, exchange.target)
