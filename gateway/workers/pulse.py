"""Whether the event loops of workers turn: each tells the parent so from time to time, and one that has fallen silent is stuck."""

import asyncio

from .channel import Channel

BEATS = 5
"""So many are due within the time after which a worker that has told nothing counts as stuck."""


class Pulse:
    """What the parent feels of one worker.

    Beats that are due are counted, not seconds: what stops the parent as well, a suspended or overloaded machine, lets none become due.
    """

    def __init__(self) -> None:
        self._missing = 0

    def __repr__(self) -> str:
        return f"<Pulse missing={self._missing}>"

    def note(self) -> None:
        """Takes note that the worker has told something."""
        self._missing = 0

    def is_missing(self) -> bool:
        """Is asked once for each beat that is due; tells whether there has been none for too long."""
        self._missing += 1
        return self._missing > BEATS


async def beat(channel: Channel, silence_seconds: float) -> None:
    """Tells the parent that the event loop turns, often enough for a parent that waits for so long; 0: never."""
    while silence_seconds:
        await asyncio.sleep(silence_seconds / BEATS)
        channel.tell(beat=True)
