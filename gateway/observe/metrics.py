"""Metrics for Prometheus; the README lists them."""

import asyncio
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from service.process_metrics import add_process_metrics

from ..access.exchange import Exchange
from ..policy.refusal import Reason
from .latency import LATENCY_BUCKETS, Latency
from .open_streams import OpenStreams
from .received import Received
from .tally import Tally

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
"""Methods with their own label: clients may invent any number of others."""


class Metrics:
    """Count what has ended. What is open is read on each scrape."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.received = Received()
        """Blocks and bytes received from the upstreams of shared and kept streams."""
        self.streams = OpenStreams(self.received)
        self.registry.register(self.streams)
        self.latency = Latency(
            Histogram(
                "gateway_added_latency_seconds",
                "Time from the arrival of the upstream's bytes to their write, sampled for one read in 64.",
                buckets=LATENCY_BUCKETS,
                registry=self.registry,
            )
        )
        self.loop_lag = add_process_metrics("gateway", self.registry)
        tasks = Gauge("gateway_tasks", "Tasks of the event loop; steady growth means a leak.", registry=self.registry)
        tasks.set_function(lambda: len(asyncio.all_tasks()))
        self._children: dict[tuple[object, ...], Counter] = {}
        self._requests = Tally("gateway_requests_total", "Forwarded requests.", ["route", "status"], self.registry)
        self._upstream_requests = Tally(
            "gateway_upstream_requests_total",
            "Requests to upstreams; for shared routes, only those answered with an event stream.",
            ["route", "method"],
            self.registry,
        )
        self._rejected = Counter(
            "gateway_rejected_total",
            "Requests that the gateway itself answered with an error.",
            ["reason", "status"],
            registry=self.registry,
        )
        self._ended = Tally("gateway_streams_ended_total", "Ended event streams, by verdict.", ["route", "verdict"], self.registry)
        self._open = Gauge("gateway_open_requests", "Open requests, including event streams.", registry=self.registry)
        self._subscribed = Counter(
            "gateway_subscriptions_total",
            "Subscriptions to shared and kept streams, by where they began: live, history, catch-up or gap.",
            ["route", "begin"],
            registry=self.registry,
        )
        self._reconnections = Counter(
            "gateway_upstream_reconnections_total", "Reconnections to upstreams of shared streams.", ["route"], registry=self.registry
        )
        self._shared = Gauge(
            "gateway_shared_streams", "Shared streams connected or reconnecting to their upstream.", registry=self.registry
        )
        self._running = Gauge("gateway_kept_streams_running", "Kept streams whose upstream has not ended.", registry=self.registry)
        self._kept = Gauge("gateway_kept_bytes", "Approximate bytes that kept streams hold in memory.", registry=self.registry)
        self._history = Gauge(
            "gateway_history_bytes",
            "Approximate bytes held by histories of shared streams and by connections that do not take them.",
            registry=self.registry,
        )
        self._history_blocks = Gauge(
            "gateway_history_blocks", "Event blocks that the histories of shared streams hold.", registry=self.registry
        )
        self._bodies = Gauge("gateway_held_body_bytes", "Bytes of request bodies in memory.", registry=self.registry)

    def count_open(self, count: Callable[[], int]) -> None:
        """Read the number of open requests from `count`."""
        self._open.set_function(count)

    def watch_kept(self, running: Callable[[], int], kept_bytes: Callable[[], int]) -> None:
        """Read from these the number of running kept streams, and the bytes that all kept streams hold in memory."""
        self._running.set_function(running)
        self._kept.set_function(kept_bytes)

    def watch_bodies(self, held_bytes: Callable[[], int]) -> None:
        """Read the bytes of request bodies in memory from `held_bytes`."""
        self._bodies.set_function(held_bytes)

    def watch_shared(self, streams: Callable[[], int], history_bytes: Callable[[], int], history_blocks: Callable[[], int]) -> None:
        """Read from these the number of shared streams, and the bytes and blocks in their histories."""
        self._shared.set_function(streams)
        self._history.set_function(history_bytes)
        self._history_blocks.set_function(history_blocks)

    def subscribed(self, route: str, begin: str) -> None:
        """Count a subscription to a shared or kept stream."""
        self._child(self._subscribed, route, begin).inc()

    def asked(self, route: str, method: str) -> None:
        """Count a request to an upstream."""
        self._upstream_requests.count(route, method if method in _METHODS else "other")

    def reconnected(self, route: str) -> None:
        """Count a reconnection to a lost upstream."""
        self._child(self._reconnections, route).inc()

    def rejected(self, reason: Reason, status: int) -> None:
        """Count an error with which the gateway itself answered."""
        self._child(self._rejected, reason, status).inc()

    def closed(self, exchange: Exchange) -> None:
        """Count an exchange that has ended."""
        route = exchange.route.path
        self._requests.count(route, exchange.status)
        if exchange.refused is not None:
            self.rejected(exchange.refused, exchange.status)
        relay = exchange.relay
        if exchange.event_stream and relay is not None:
            self._ended.count(route, relay.verdict)
            self.streams.closed(exchange)

    def _child(self, counter: Counter, *labels: object) -> Counter:
        """Return `counter.labels(...)` from a cache: the original takes a lock and formats strings on each call."""
        key = (counter, *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = counter.labels(*labels)
        return child
