"""The lag of the event loop."""

import asyncio
import contextlib
from collections.abc import Iterator
from time import perf_counter

from prometheus_client import Histogram

_INTERVAL_SECONDS = 0.1
_WINDOW_SECONDS = 15.0  # as often as Prometheus scrapes, so that it misses no peak


class LoopLag:
    """Measure the event loop's lag: the delay of a timer that is due ten times a second.

    It catches a blocking call of less than a tenth of a second now and then, and a longer one always.
    """

    def __init__(self, histogram: Histogram) -> None:
        self.latest_seconds = 0.0
        self._histogram = histogram
        self._worst = self._worst_before = 0.0
        self._window_end = 0.0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<LoopLag latest={self.latest_seconds:.4f} worst={self.worst_seconds:.4f}>"

    @property
    def worst_seconds(self) -> float:
        """The worst lag of the last 15 to 30 seconds."""
        return max(self._worst, self._worst_before)

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Measure the running loop while the context is open."""
        self._window_end = perf_counter() + _WINDOW_SECONDS
        self._arm(asyncio.get_running_loop())
        try:
            yield
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due = perf_counter() + _INTERVAL_SECONDS
        self._timer = loop.call_later(_INTERVAL_SECONDS, self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now = perf_counter()
        lag = self.latest_seconds = max(0.0, now - self._due)
        self._histogram.observe(lag)
        if now >= self._window_end:
            self._worst_before, self._worst = self._worst, 0.0
            self._window_end = now + _WINDOW_SECONDS
        self._worst = max(self._worst, lag)
        self._arm(loop)
