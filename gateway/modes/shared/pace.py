"""When to reconnect a stream that was lost."""

import random

from eventstream.reconnection import Reconnection

from .origin import FIRST_SECONDS, LONGEST_SECONDS

_AFTER_LOSS_SECONDS = (0.1, 0.25)


class Pace(Reconnection):
    """The pace of attempts without waiting subscribers. Only events that have not arrived before count as progress."""

    def progressed(self) -> None:
        """Do nothing: the event source cannot tell whether an event is new."""

    def brought_news(self) -> None:
        """Record that a new event has arrived."""
        super().progressed()


def after_loss(setbacks: int) -> float:
    """Return the seconds until a lost stream with a subscriber is reconnected, after `setbacks` failures."""
    if not setbacks:
        return random.uniform(*_AFTER_LOSS_SECONDS)
    return min(FIRST_SECONDS * 2.0 ** min(setbacks - 1, 10), LONGEST_SECONDS) * random.uniform(0.8, 1)
