"""End streams whose credential has expired or was revoked."""

import asyncio
import time
from collections.abc import Iterable

from ..policy.paths import STREAMS_PATH
from ..policy.route_table import RouteTable
from ..policy.routes import Route
from .exchange import Exchange

TOKEN_EXPIRED = "token-expired"  # noqa: S105  # a verdict
"""The token that opened the stream has expired."""
REVOKED = "revoked"
"""The route no longer has the API key that opened the stream, or the key no longer grants it."""

_LONGEST_SECONDS = 3600.0  # checks again after an hour: the wall clock may be set, timers use the monotonic clock
_POLL_SECONDS = 1.0


def end_at_expiry(exchange: Exchange, expires_at: float, verdict: str = TOKEN_EXPIRED) -> None:
    """End an event stream at `expires_at` (Unix time), after a complete block. Other answers continue. `exchange.expiry` is the timer."""
    if exchange.expiry is not None:
        exchange.expiry.cancel()
    left = expires_at - time.time()
    relay = exchange.relay
    if left <= 0 and relay is not None:
        if exchange.event_stream:
            relay.end(verdict)
        return
    delay = min(left, _LONGEST_SECONDS) if left > 0 else _POLL_SECONDS  # the answer has not begun yet
    exchange.expiry = asyncio.get_running_loop().call_later(delay, end_at_expiry, exchange, expires_at, verdict)


def end_revoked(exchanges: Iterable[Exchange], routes: RouteTable) -> None:
    """End event streams, after a complete block, that their API key would no longer open.

    A stream continues if its route is gone or no longer authenticates, or if it was opened with a token, which has its own expiry.
    A stream handed off by another worker is ended there.
    """
    for exchange in tuple(exchanges):
        route = routes.by_path.get(exchange.route_path) if not exchange.handed_off else None
        if route is not None and not _is_valid(exchange, route):
            end_at_expiry(exchange, 0.0, REVOKED)


def _is_valid(exchange: Exchange, route: Route) -> bool:
    if exchange.caller is None or not exchange.caller.key or route.auth is None or route.auth.kind == "none":
        return True
    found = next((key for key in route.auth.keys if key.digest == exchange.caller.key), None)
    if found is None:
        return False
    return found.allowed is None or exchange.target.startswith(STREAMS_PATH) or found.allowed.allows(exchange.method, exchange.target)
