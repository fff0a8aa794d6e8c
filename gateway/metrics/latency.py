"""What the gateway adds to the time that an event takes."""

from collections import deque

from prometheus_client import Histogram

LATENCY_BUCKETS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""In seconds, for the histogram."""

_MOST_RECENT = 128


class Latency:
    """Takes samples of the time from upstream's bytes to their write to the last subscriber who is live.

    Modes direct and resumable are timed from the call that the event loop makes with what it has read, to the end of the write. In mode
    shared the time begins when a block has come into the history, so the turn of the event loop that brings it there is not in it.
    """

    def __init__(self, histogram: Histogram) -> None:
        self.recent: deque[float] = deque(maxlen=_MOST_RECENT)
        """The newest samples in seconds, the newest one last."""
        self._histogram = histogram

    def __repr__(self) -> str:
        return f"<Latency recent={len(self.recent)}>"

    def note(self, seconds: float) -> None:
        """Takes a sample."""
        self.recent.append(seconds)
        self._histogram.observe(seconds)
