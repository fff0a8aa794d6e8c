"""The metrics that each service has of its own process."""

import asyncio
import contextlib
from collections.abc import Iterator
from time import perf_counter

from prometheus_client import CollectorRegistry, Gauge, Histogram, ProcessCollector

from .version import VERSION

_INTERVAL_SECONDS = 0.1
_WINDOW_SECONDS = 15.0  # as often as Prometheus scrapes, so that it misses no peak
_LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)  # seconds


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


def add_process_metrics(service: str, registry: CollectorRegistry) -> LoopLag:
    """Add the process, its release and the lag of its event loop to `registry`. Return the lag, for `watch`."""
    ProcessCollector(registry=registry)
    Gauge(f"{service}_build_info", "1 for the running release.", ["version"], registry=registry).labels(VERSION).set(1)
    lag = LoopLag(Histogram(f"{service}_loop_lag_seconds", "Delay of the event loop.", buckets=_LAG_BUCKETS, registry=registry))
    worst = Gauge(f"{service}_loop_lag_worst_seconds", "The longest delay of the last 15 to 30 seconds.", registry=registry)
    worst.set_function(lambda: lag.worst_seconds)
    return lag
