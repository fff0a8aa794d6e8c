"""Measure the latency that the gateway adds to an event."""

from collections import deque

from prometheus_client import Histogram

LATENCY_BUCKETS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""Histogram buckets in seconds."""

_MOST_RECENT = 128


class Latency:
    """Sample the time from the arrival of an upstream's bytes to their write to the last live subscriber.

    In modes direct and resumable the time runs from the event loop's call with the bytes read to the end of the write. In mode shared it
    starts when a block is in the history, so it excludes the turn of the event loop that put the block there.
    """

    def __init__(self, histogram: Histogram) -> None:
        self.recent: deque[float] = deque(maxlen=_MOST_RECENT)
        """The newest samples in seconds, newest last."""
        self._histogram = histogram

    def __repr__(self) -> str:
        return f"<Latency recent={len(self.recent)}>"

    def note(self, seconds: float) -> None:
        """Record a sample."""
        self.recent.append(seconds)
        self._histogram.observe(seconds)
