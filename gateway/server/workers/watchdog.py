"""Detect stuck event loops: each worker sends regular heartbeats to the parent, and a silent one is stuck."""

import asyncio

from .channel import Channel

HEARTBEATS = 5
"""Heartbeats due within the silence after which a worker counts as stuck."""


class Watchdog:
    """The heartbeats of one worker, counted by the parent.

    The parent counts due heartbeats, not seconds: when a suspended or overloaded machine stops the parent too, none becomes due.
    """

    def __init__(self) -> None:
        self._missing = 0

    def __repr__(self) -> str:
        return f"<Watchdog missing={self._missing}>"

    def reset(self) -> None:
        """Record a message from the worker."""
        self._missing = 0

    def expired(self) -> bool:
        """Return whether too many heartbeats are missing. Call it once for each due heartbeat."""
        self._missing += 1
        return self._missing > HEARTBEATS


async def send_heartbeats(channel: Channel, silence_seconds: float) -> None:
    """Send heartbeats to the parent, often enough for its limit of `silence_seconds`. 0: never."""
    while silence_seconds:
        await asyncio.sleep(silence_seconds / HEARTBEATS)
        channel.send(heartbeat=True)
