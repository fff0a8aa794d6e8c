"""Counts what streams do, for `/metrics` and for the one log line that each stream gets when it ends."""

import time
from typing import Literal

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector

Reason = Literal["completed", "left", "drained"]
"""Why a stream ended: all was sent, the client left (or was cut off), the process stops."""

_log = structlog.get_logger()


class Meters:
    """One app's metrics, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.open = Gauge("producer_streams_open", "Streams open now.", ["route"], registry=self.registry)
        self.ended = Counter("producer_streams_ended", "Streams ended, by reason.", ["route", "reason"], registry=self.registry)
        self.events = Counter("producer_events_sent", "Events handed to the transport.", ["route"], registry=self.registry)
        self.bytes = Counter("producer_bytes_sent", "Body bytes of streams handed to the transport.", ["route"], registry=self.registry)


class StreamCount:
    """The counts of one stream, from `StreamCount(...)` when it opens to `close(...)`, which must be called once."""

    def __init__(self, meters: Meters, route: str) -> None:
        self._meters = meters
        self._route = route
        self._opened_at = time.monotonic()
        self._events_sent = meters.events.labels(route)
        self._bytes_sent = meters.bytes.labels(route)
        self.events = 0
        self.bytes = 0
        meters.open.labels(route).inc()

    def __repr__(self) -> str:
        return f"<StreamCount {self._route} events={self.events} bytes={self.bytes}>"

    def add(self, sent: bytes, *, events: int = 0) -> None:
        """Notes bytes that were handed to the transport, and how many events are in them."""
        self.bytes += len(sent)
        self._bytes_sent.inc(len(sent))
        if events:
            self.events += events
            self._events_sent.inc(events)

    def close(self, reason: Reason) -> None:
        """Notes the end, and logs it."""
        self._meters.open.labels(self._route).dec()
        self._meters.ended.labels(self._route, reason).inc()
        seconds = round(time.monotonic() - self._opened_at, 3)
        _log.info("stream ended", route=self._route, reason=reason, events=self.events, bytes=self.bytes, seconds=seconds)
