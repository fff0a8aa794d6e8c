"""The end of streams whose credential is no longer good."""

import asyncio
import time

from ..exchange import Exchange

TOKEN_EXPIRED = "token-expired"  # noqa: S105  # a verdict
"""The token that opened the stream has expired."""

_LONGEST_SECONDS = 3600.0  # then it looks again: clocks are set, and timers run on another one
_POLL_SECONDS = 1.0


def end_at_expiry(exchange: Exchange, expires_at: float, verdict: str = TOKEN_EXPIRED) -> None:
    """Lets an event stream end, where a block ends, at `expires_at` (Unix time); other answers run on. `exchange.expiry` is its timer."""
    if exchange.expiry is not None:
        exchange.expiry.cancel()
    left = expires_at - time.time()
    relay = exchange.relay
    if left <= 0 and relay is not None:
        if exchange.event_stream:
            relay.end(verdict)
        return
    delay = min(left, _LONGEST_SECONDS) if left > 0 else _POLL_SECONDS  # nothing has been answered yet
    exchange.expiry = asyncio.get_running_loop().call_later(delay, end_at_expiry, exchange, expires_at, verdict)
