"""Figures for Prometheus; the README lists them."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge

from .exchange import Exchange
from .refusal import Reason

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
"""Those that are counted by name: clients may make up any number of others."""


class Metrics:
    """Counts what ends; what is open is asked for when somebody looks."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._children: dict[tuple[object, ...], Counter] = {}
        self._requests = Counter("gateway_requests_total", "Requests that were forwarded.", ["route", "status"], registry=self.registry)
        self._upstream_requests = Counter(
            "gateway_upstream_requests_total",
            "Requests to upstreams; of shared routes those that were answered with an event stream.",
            ["route", "method"],
            registry=self.registry,
        )
        self._rejected = Counter(
            "gateway_rejected_total",
            "Requests that the gateway answered with an error of its own.",
            ["reason", "status"],
            registry=self.registry,
        )
        self._ended = Counter(
            "gateway_streams_ended_total", "Event streams, by how they ended.", ["route", "verdict"], registry=self.registry
        )
        self._bytes = Counter(
            "gateway_stream_bytes_total",
            "Bytes of event streams sent, counted when their stream ends.",
            ["route"],
            registry=self.registry,
        )
        self._blocks = Counter(
            "gateway_stream_blocks_total", "Event blocks sent, counted when their stream ends.", ["route"], registry=self.registry
        )
        self._heartbeats = Counter(
            "gateway_heartbeats_total", "Heartbeats sent, counted when their stream ends.", ["route"], registry=self.registry
        )
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

    def count_open(self, count: Callable[[], int]) -> None:
        """Lets `count` say how many requests are open."""
        self._open.set_function(count)

    def watch_kept(self, running: Callable[[], int], kept_bytes: Callable[[], int]) -> None:
        """Lets these say how many streams of resumable routes run and what all of them hold in memory."""
        self._running.set_function(running)
        self._kept.set_function(kept_bytes)

    def watch_shared(self, streams: Callable[[], int], history_bytes: Callable[[], int]) -> None:
        """Lets these say how many shared streams there are and what their histories hold."""
        self._shared.set_function(streams)
        self._history.set_function(history_bytes)

    def subscribed(self, route: str, begin: str) -> None:
        """Counts a subscription to a shared stream."""
        self._child(self._subscribed, route, begin).inc()

    def asked(self, route: str, method: str) -> None:
        """Counts a request to an upstream."""
        self._child(self._upstream_requests, route, method if method in _METHODS else "other").inc()

    def reconnected(self, route: str) -> None:
        """Counts an upstream that was lost and is followed again."""
        self._child(self._reconnections, route).inc()

    def rejected(self, reason: Reason, status: int) -> None:
        """Counts an error answer of the gateway's own."""
        self._child(self._rejected, reason, status).inc()

    def closed(self, exchange: Exchange) -> None:
        """Counts an exchange that is over."""
        route = exchange.route.path
        self._child(self._requests, route, exchange.status).inc()
        if exchange.refused is not None:
            self.rejected(exchange.refused, exchange.status)
        relay = exchange.relay
        if exchange.event_stream and relay is not None:
            self._child(self._ended, route, relay.verdict).inc()
            self._child(self._blocks, route).inc(relay.blocks_out)
            self._child(self._bytes, route).inc(relay.bytes_out)
            if relay.heartbeats:
                self._child(self._heartbeats, route).inc(relay.heartbeats)

    def _child(self, counter: Counter, *labels: object) -> Counter:
        """The same as `counter.labels(...)`, which takes a lock and makes strings each time."""
        key = (counter, *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = counter.labels(*labels)
        return child
