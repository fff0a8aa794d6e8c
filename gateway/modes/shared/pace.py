"""When a stream that was lost is tried again."""

import random

from eventstream.reconnection import Reconnection

from .origin import FIRST_SECONDS, LONGEST_SECONDS

_AFTER_LOSS_SECONDS = (0.1, 0.25)


class Pace(Reconnection):
    """The pace of attempts that no subscriber waits for; of events only those that have not come before count as new."""

    def progressed(self) -> None:
        """Do nothing: the event source cannot tell whether an event has come before."""

    def brought_news(self) -> None:
        """Note that the stream brought an event that has not come before."""
        super().progressed()


def after_loss(setbacks: int) -> float:
    """Return when to try again after a stream was lost that had a subscriber, and before which there were setbacks."""
    if not setbacks:
        return random.uniform(*_AFTER_LOSS_SECONDS)
    return min(FIRST_SECONDS * 2.0 ** min(setbacks - 1, 10), LONGEST_SECONDS) * random.uniform(0.8, 1)
