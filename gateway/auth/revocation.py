"""The end of streams whose API key was taken away while they were open."""

from collections.abc import Iterable

from ..exchange import Exchange
from ..resumable.kept_streams import STREAMS_PATH
from ..routing.route_table import RouteTable
from ..routing.routes import Route
from .expiry import end_at_expiry

REVOKED = "revoked"
"""The API key that opened the stream is no longer one of its route's, or no longer lets read it."""


def end_revoked(exchanges: Iterable[Exchange], routes: RouteTable) -> None:
    """Lets event streams end, where a block ends, that their key would no longer open.

    One of a route that is gone, or that anybody may use now, goes on; so does one that was opened with a token, which says itself until
    when it is good. One that another worker has handed over is ended there.
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
