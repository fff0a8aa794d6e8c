"""Figures for Prometheus; the README lists them."""

import asyncio
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from service.loop_lag import LAG_BUCKETS, LoopLag
from service.version import VERSION

from ..exchange import Exchange
from ..refusal import Reason
from .latency import LATENCY_BUCKETS, Latency
from .open_streams import OpenStreams
from .received import Received
from .tally import Tally

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
"""Those that are counted by name: clients may make up any number of others."""


class Metrics:
    """Counts what ends; what is open is asked for when somebody looks."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        build = Gauge("gateway_build_info", "1 for the release that runs.", ["version"], registry=self.registry)
        build.labels(VERSION).set(1)
        self.received = Received()
        """What upstreams of shared and kept streams have sent."""
        self.streams = OpenStreams(self.received)
        self.registry.register(self.streams)
        self.latency = Latency(
            Histogram(
                "gateway_added_latency_seconds",
                "Time from upstream's bytes to their write, of one read in 64.",
                buckets=LATENCY_BUCKETS,
                registry=self.registry,
            )
        )
        self.loop_lag = LoopLag(
            Histogram("gateway_loop_lag_seconds", "How late the event loop was.", buckets=LAG_BUCKETS, registry=self.registry)
        )
        worst = Gauge("gateway_loop_lag_worst_seconds", "The worst of the last 15 to 30 seconds.", registry=self.registry)
        worst.set_function(lambda: self.loop_lag.worst_seconds)
        tasks = Gauge("gateway_tasks", "Tasks of the event loop; more and more of them would be a leak.", registry=self.registry)
        tasks.set_function(lambda: len(asyncio.all_tasks()))
        self._children: dict[tuple[object, ...], Counter] = {}
        self._requests = Tally("gateway_requests_total", "Requests that were forwarded.", ["route", "status"], self.registry)
        self._upstream_requests = Tally(
            "gateway_upstream_requests_total",
            "Requests to upstreams; of shared routes those that were answered with an event stream.",
            ["route", "method"],
            self.registry,
        )
        self._rejected = Counter(
            "gateway_rejected_total",
            "Requests that the gateway answered with an error of its own.",
            ["reason", "status"],
            registry=self.registry,
        )
        self._ended = Tally("gateway_streams_ended_total", "Event streams, by how they ended.", ["route", "verdict"], self.registry)
        self._open = Gauge("gateway_open_requests", "Requests that are open, event streams included.", registry=self.registry)
        self._subscribed = Counter(
            "gateway_subscriptions_total",
            "Subscriptions to shared and kept streams, by where they began: live, history, catch-up or gap.",
            ["route", "begin"],
            registry=self.registry,
        )
        self._reconnections = Counter(
            "gateway_upstream_reconnections_total", "Upstreams of shared streams found again.", ["route"], registry=self.registry
        )
        self._shared = Gauge("gateway_shared_streams", "Shared streams that are followed.", registry=self.registry)
        self._running = Gauge("gateway_kept_streams_running", "Streams of resumable routes that run.", registry=self.registry)
        self._kept = Gauge("gateway_kept_bytes", "What streams of resumable routes hold in memory, about.", registry=self.registry)
        self._history = Gauge("gateway_history_bytes", "What the histories of shared streams hold, about.", registry=self.registry)
        self._history_blocks = Gauge("gateway_history_blocks", "Event blocks that they hold.", registry=self.registry)

    def count_open(self, count: Callable[[], int]) -> None:
        """Lets `count` say how many requests are open."""
        self._open.set_function(count)

    def watch_kept(self, running: Callable[[], int], kept_bytes: Callable[[], int]) -> None:
        """Lets these say how many streams of resumable routes run and what all of them hold in memory."""
        self._running.set_function(running)
        self._kept.set_function(kept_bytes)

    def watch_shared(self, streams: Callable[[], int], history_bytes: Callable[[], int], history_blocks: Callable[[], int]) -> None:
        """Read from these how many shared streams there are and what their histories hold."""
        self._shared.set_function(streams)
        self._history.set_function(history_bytes)
        self._history_blocks.set_function(history_blocks)

    def subscribed(self, route: str, begin: str) -> None:
        """Counts a subscription to a shared stream."""
        self._child(self._subscribed, route, begin).inc()

    def asked(self, route: str, method: str) -> None:
        """Counts a request to an upstream."""
        self._upstream_requests.count(route, method if method in _METHODS else "other")

    def reconnected(self, route: str) -> None:
        """Counts an upstream that was lost and is followed again."""
        self._child(self._reconnections, route).inc()

    def rejected(self, reason: Reason, status: int) -> None:
        """Counts an error answer of the gateway's own."""
        self._child(self._rejected, reason, status).inc()

    def closed(self, exchange: Exchange) -> None:
        """Counts an exchange that is over."""
        route = exchange.route.path
        self._requests.count(route, exchange.status)
        if exchange.refused is not None:
            self.rejected(exchange.refused, exchange.status)
        relay = exchange.relay
        if exchange.event_stream and relay is not None:
            self._ended.count(route, relay.verdict)
            self.streams.closed(exchange)

    def _child(self, counter: Counter, *labels: object) -> Counter:
        """The same as `counter.labels(...)`, which takes a lock and makes strings each time."""
        key = (counter, *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = counter.labels(*labels)
        return child
