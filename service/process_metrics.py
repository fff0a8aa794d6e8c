"""The metrics that each service has of its own process."""

from prometheus_client import CollectorRegistry, Gauge, Histogram, ProcessCollector

from .loop_lag import LoopLag
from .version import VERSION

_LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)  # seconds


def add_process_metrics(service: str, registry: CollectorRegistry) -> LoopLag:
    """Add the process, its release and the lag of its event loop to `registry`. Return the lag, for `watch`."""
    ProcessCollector(registry=registry)
    Gauge(f"{service}_build_info", "1 for the running release.", ["version"], registry=registry).labels(VERSION).set(1)
    lag = LoopLag(Histogram(f"{service}_loop_lag_seconds", "Delay of the event loop.", buckets=_LAG_BUCKETS, registry=registry))
    worst = Gauge(f"{service}_loop_lag_worst_seconds", "The longest delay of the last 15 to 30 seconds.", registry=registry)
    worst.set_function(lambda: lag.worst_seconds)
    return lag
