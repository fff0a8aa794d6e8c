"""Count what streams do, for `/metrics` and for the one log line of each stream when it ends."""

import time
from typing import Literal

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from service.process_metrics import add_process_metrics
from service.tracing import current_span

Reason = Literal["completed", "left", "stalled", "drained", "failed"]
"""Why a stream ended: all was sent, the client left (or was disconnected), it was disconnected because it did not read, the process
stopped, the event log could not be read."""

_log = structlog.get_logger()


class Meters:
    """One app's metrics, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("producer_requests", "Requests answered, by status.", ["method", "status"], registry=self.registry)
        self.loop_lag = add_process_metrics("producer", self.registry)
        self.open = Gauge("producer_streams_open", "Streams open now.", ["route"], registry=self.registry)
        self.ended = Counter("producer_streams_ended", "Streams ended, by reason.", ["route", "reason"], registry=self.registry)
        self.events = Counter("producer_events_sent", "Events handed to the transport.", ["route"], registry=self.registry)
        self.bytes = Counter("producer_bytes_sent", "Body bytes of streams handed to the transport.", ["route"], registry=self.registry)
        self.gaps = Counter("producer_gaps", "Gaps reported to subscribers of topics, by reason.", ["reason"], registry=self.registry)
        published = Counter("producer_published_events", "Events sent by publishers, by result.", ["result"], registry=self.registry)
        self.stored_events = published.labels("stored")
        self.repeated_events = published.labels("repeated")
        self.stored_bytes = Counter("producer_published_bytes", "Bytes of the blocks of stored events.", registry=self.registry)
        self.append_seconds = Histogram(
            "producer_append_seconds",
            "Time until the log had stored published events.",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
            registry=self.registry,
        )
        self.log_writable = Gauge("producer_log_writable", "0 since the event log last failed to store events.", registry=self.registry)


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
        """Count bytes that were handed to the transport, and the events in them."""
        self.bytes += len(sent)
        self._bytes_sent.inc(len(sent))
        if events:
            self.events += events
            self._events_sent.inc(events)

    def close(self, reason: Reason) -> None:
        """Count the end, and log it."""
        self._meters.open.labels(self._route).dec()
        self._meters.ended.labels(self._route, reason).inc()
        seconds = round(time.monotonic() - self._opened_at, 3)
        _log.info("stream ended", route=self._route, reason=reason, events=self.events, bytes=self.bytes, seconds=seconds)
        if (span := current_span.get()) is not None:
            span.note({"eventstream.blocks": self.events, "eventstream.bytes": self.bytes, "eventstream.verdict": reason})
