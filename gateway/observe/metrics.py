"""Metrics for Prometheus; the README lists them."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Gauge, Histogram, Metric
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from service.process_metrics import add_process_metrics

from ..access.exchange import Exchange
from ..modes.observer import Observer, Reader
from ..policy.refusal import Reason
from .timeline import Timeline
from .traffic import Traffic

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
"""Methods with their own label: clients may invent any number of others."""
_LATENCY_BUCKETS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)  # seconds
_MOST_LATENCIES = 128
_GAUGES = {
    "gateway_tasks": "Tasks of the event loop; steady growth means a leak.",
    "gateway_open_requests": "Open requests, including event streams.",
    "gateway_shared_streams": "Shared streams connected or reconnecting to their upstream.",
    "gateway_history_bytes": "Approximate bytes held by histories of shared streams and by connections that do not take them.",
    "gateway_history_blocks": "Event blocks that the histories of shared streams hold.",
    "gateway_kept_streams_running": "Kept streams whose upstream has not ended.",
    "gateway_kept_bytes": "Approximate bytes that kept streams hold in memory.",
    "gateway_held_body_bytes": "Bytes of request bodies in memory.",
}


class Tally(Collector):
    """Count by labels on the event loop's thread. `registry` may be read from any thread."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self._name = name
        self._documentation = documentation
        self._labels = labels
        self._counts: dict[tuple[str | int, ...], int] = {}
        registry.register(self)

    def __repr__(self) -> str:
        return f"<Tally {self._name} {sum(self._counts.values())}>"

    def count(self, *labels: str | int, by: int = 1) -> None:
        """Count one more, or `by` more, with these labels."""
        self._counts[labels] = self._counts.get(labels, 0) + by

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(self._name, self._documentation, labels=self._labels)
        for labels, count in list(self._counts.items()):
            family.add_metric([*map(str, labels)], count)
        yield family


class Metrics(Observer):
    """Count what has ended, and keep incidents in a timeline. What is open is read on each scrape."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.timeline = Timeline()
        self.traffic = Traffic()
        self.registry.register(self.traffic)
        self.loop_lag = add_process_metrics("gateway", self.registry)
        self.latencies: deque[float] = deque(maxlen=_MOST_LATENCIES)
        """The newest latencies in seconds, newest last."""
        self._latency = Histogram(
            "gateway_added_latency_seconds",
            "Time from the arrival of the upstream's bytes to their write, sampled for one read in 64.",
            buckets=_LATENCY_BUCKETS,
            registry=self.registry,
        )
        self._requests = self._tally("gateway_requests_total", "Forwarded requests.", "route", "status")
        self._upstream_requests = self._tally(
            "gateway_upstream_requests_total",
            "Requests to upstreams; for shared routes, only those answered with an event stream.",
            "route",
            "method",
        )
        self._rejected = self._tally(
            "gateway_rejected_total", "Requests that the gateway itself answered with an error.", "reason", "status"
        )
        self._ended = self._tally("gateway_streams_ended_total", "Ended event streams, by verdict.", "route", "verdict")
        self._subscribed = self._tally(
            "gateway_subscriptions_total",
            "Subscriptions to shared and kept streams, by where they began: live, history, catch-up or gap.",
            "route",
            "begin",
        )
        self._resumptions = self._tally(
            "gateway_resumptions_total",
            "Requests that resumed a kept answer on its route's own path, by convention: the preset, or id, name or retry.",
            "route",
            "convention",
        )
        self._replayed = self._tally("gateway_replayed_bytes_total", "Bytes that these requests got again.", "route")
        self._stopped = self._tally("gateway_answers_stopped_total", "Running answers that a client stopped by name.", "route")
        self._superseded = self._tally("gateway_names_superseded_total", "Running answers whose name a newer one took.", "route")
        self._reconnections = self._tally("gateway_upstream_reconnections_total", "Reconnections to upstreams of shared streams.", "route")
        self._gauges = {name: Gauge(name, documentation, registry=self.registry) for name, documentation in _GAUGES.items()}
        self.watch("gateway_tasks", lambda: len(asyncio.all_tasks()))

    def _tally(self, name: str, documentation: str, *labels: str) -> Tally:
        return Tally(name, documentation, labels, self.registry)

    def watch(self, gauge: str, read: Callable[[], float]) -> None:
        """Read a gauge from `read` on each scrape."""
        self._gauges[gauge].set_function(read)

    def requested(self, route: str, method: str) -> None:
        self._upstream_requests.count(route, method if method in _METHODS else "other")

    def reconnected(self, route: str) -> None:
        self._reconnections.count(route)

    def subscribed(self, route: str, begin: str) -> None:
        self._subscribed.count(route, begin)

    def resumed(self, route: str, convention: str, replayed_bytes: int) -> None:
        self._resumptions.count(route, convention)
        self._replayed.count(route, by=replayed_bytes)

    def stopped(self, route: str) -> None:
        self._stopped.count(route)

    def superseded(self, route: str) -> None:
        self._superseded.count(route)

    def began_reading(self, reader: Reader, route: str) -> None:
        self.traffic.began_reading(reader, route)

    def ended_reading(self, reader: Reader) -> None:
        self.traffic.ended_reading(reader)

    def note_latency(self, seconds: float) -> None:
        """Note the time from the arrival of an upstream's bytes to their write to the last live subscriber, in a sample.

        In modes direct and resumable it begins with the event loop's call with the bytes read. In mode shared it begins when a block is in
        the history, so it excludes the turn of the event loop that put the block there.
        """
        self.latencies.append(seconds)
        self._latency.observe(seconds)

    def note_incident(self, kind: str, route: str, target: str, detail: str) -> None:
        self.timeline.mark(kind, route, target, detail)

    def rejected(self, reason: Reason, status: int) -> None:
        """Count an error with which the gateway itself answered."""
        self._rejected.count(reason, status)

    def closed(self, exchange: Exchange) -> None:
        """Count an exchange that has ended."""
        route = exchange.route_path
        self._requests.count(route, exchange.status)
        if exchange.refused is not None:
            self.rejected(exchange.refused, exchange.status)
        relay = exchange.relay
        if exchange.event_stream and relay is not None:
            self._ended.count(route, relay.verdict)
            self.traffic.closed(exchange)
            self.timeline.note_end(exchange)
