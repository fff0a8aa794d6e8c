"""End streams whose credential has expired or was revoked."""

import asyncio
import time

from .exchange import Exchange

TOKEN_EXPIRED = "token-expired"  # noqa: S105  # a verdict
"""The token that opened the stream has expired."""

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
