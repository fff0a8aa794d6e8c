"""Detect stuck event loops: each worker sends regular beats to the parent, and a silent one is stuck."""

import asyncio

from .channel import Channel

BEATS = 5
"""Beats due within the silence after which a worker counts as stuck."""


class Pulse:
    """The beats of one worker, counted by the parent.

    The parent counts due beats, not seconds: when a suspended or overloaded machine stops the parent too, no beats become due.
    """

    def __init__(self) -> None:
        self._missing = 0

    def __repr__(self) -> str:
        return f"<Pulse missing={self._missing}>"

    def note(self) -> None:
        """Record a message from the worker."""
        self._missing = 0

    def is_missing(self) -> bool:
        """Return whether too many beats are missing. Call it once for each due beat."""
        self._missing += 1
        return self._missing > BEATS


async def beat(channel: Channel, silence_seconds: float) -> None:
    """Send beats to the parent, often enough for its limit of `silence_seconds`. 0: never."""
    while silence_seconds:
        await asyncio.sleep(silence_seconds / BEATS)
        channel.tell(beat=True)
