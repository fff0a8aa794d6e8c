"""Spans for a trace collector (OTLP over HTTP), if `OTEL_*` enables them. OpenTelemetry is not imported before that."""

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING

import structlog

from .version import VERSION

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
    from opentelemetry.trace import Span as OtelSpan
    from opentelemetry.trace import Tracer

Attributes = Mapping[str, str | int | float | bool]

TRACE_FIELDS = ("traceparent", "tracestate")
"""The header fields that carry a trace (W3C Trace Context)."""

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"
_QUIET_SECONDS = 60.0
_FLUSH_SECONDS = 1.0  # after a drain
_GIVEN_UP_SECONDS = 10.0
_POLL_SECONDS = 0.01

log = structlog.get_logger()


class TracingError(ValueError):
    """`OTEL_*` asks for something unsupported; the message names what is supported."""


class Span:
    """The span of one request, or of one connection to an upstream."""

    __slots__ = ("_span", "tracing")

    def __init__(self, tracing: "Tracing", span: "OtelSpan") -> None:
        self.tracing = tracing
        """The tracing that started the span."""
        self._span = span

    def fields(self) -> dict[str, str]:
        """Return the header fields that let the receiver of a request continue the trace."""
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        fields: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(fields, trace.set_span_in_context(self._span))
        return fields

    def note(self, attributes: Attributes) -> None:
        """Add attributes."""
        self._span.set_attributes(attributes)

    def rename(self, name: str) -> None:
        """Set a name that was not known at the start."""
        self._span.update_name(name)

    def link(self, other: "Span") -> None:
        """Link to another span, even of another trace."""
        self._span.add_link(other._span.get_span_context())

    def end(self, attributes: Attributes, error: str = "") -> None:
        """End the span; with `error`, as failed."""
        from opentelemetry.trace import Status, StatusCode

        self._span.set_attributes(attributes)
        if error:
            self._span.set_status(Status(StatusCode.ERROR, error))
        self._span.end()


current_span: ContextVar[Span | None] = ContextVar("current_span", default=None)
"""The span of the request that the running task answers, for code that is not passed one."""


class Tracing:
    """Start spans; a thread of its own sends them in batches."""

    def __init__(self, tracer: "Tracer", processor: "BatchSpanProcessor", exporter: "SpanExporter", complaints: "_Complaints") -> None:
        self._tracer = tracer
        self._processor = processor
        self._exporter = exporter
        self._complaints = complaints

    def serve(self, name: str, fields: Mapping[str, str], attributes: Attributes) -> Span:
        """Start the span of a request with these header fields, which may carry a trace context."""
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        parent = TraceContextTextMapPropagator().extract({key: fields[key] for key in TRACE_FIELDS if key in fields})
        return self._start(name, SpanKind.SERVER, parent, attributes)

    def ask(self, name: str, attributes: Attributes, parent: Span | None = None, links: Sequence[Span] = ()) -> Span:
        """Start the span of an outgoing request; without a parent it starts a trace."""
        from opentelemetry import trace
        from opentelemetry.context import Context

        context = Context() if parent is None else trace.set_span_in_context(parent._span, Context())
        span = self._start(name, trace.SpanKind.CLIENT, context, attributes)
        for other in links:
            span.link(other)
        return span

    def _start(self, name: str, kind: object, parent: "Context", attributes: Attributes) -> Span:
        return Span(self, self._tracer.start_span(name, parent, kind, attributes))  # type: ignore[arg-type]

    async def close(self, within_seconds: float = _FLUSH_SECONDS) -> None:
        """Send the remaining spans. Stop waiting after `within_seconds`, or as soon as the collector answers with an error."""
        sending = threading.Thread(target=self._processor.shutdown, name="last-spans", daemon=True)
        sending.start()
        end = time.monotonic() + within_seconds
        while sending.is_alive() and time.monotonic() < end and not self._complaints.recent:
            await asyncio.sleep(_POLL_SECONDS)
        if sending.is_alive():
            self._exporter.shutdown()  # or it would retry for ten seconds more
            log.warning("the last spans are lost: the collector does not accept them")


class _Complaints(logging.Handler):
    """Pass on OpenTelemetry's warnings at most once a minute: a collector that is down would fill the logs."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._quiet_until = 0.0
        self._newest = -_GIVEN_UP_SECONDS

    @property
    def recent(self) -> bool:
        """Whether a warning came within the time after which OpenTelemetry drops a batch."""
        return time.monotonic() - self._newest < _GIVEN_UP_SECONDS

    def emit(self, record: logging.LogRecord) -> None:
        now = self._newest = time.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + _QUIET_SECONDS
            log.warning("spans cannot be sent", reason=record.getMessage().splitlines()[0][:300])


def open_tracing(service: str, environ: Mapping[str, str] = os.environ) -> Tracing | None:
    """Return the tracing for `service`, None unless it is enabled. `OTEL_SERVICE_NAME` overrides the name.

    An OTLP endpoint or `OTEL_TRACES_EXPORTER=otlp` enables it, unless `OTEL_SDK_DISABLED` is true. The SDK's variables set samplers,
    limits, header fields and batches. Raises TracingError for a protocol or an exporter that is not supported.
    """
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    wanted = exporter == "otlp" or (not exporter and any(environ.get(name) for name in _ENDPOINTS))
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or exporter == "none" or not (wanted or exporter):
        return None
    if exporter not in ("", "otlp"):
        raise TracingError(f"OTEL_TRACES_EXPORTER must be otlp or none, got {exporter!r}")
    protocol = next((environ[name].strip() for name in _PROTOCOLS if environ.get(name)), _PROTOCOL)
    if protocol != _PROTOCOL:
        raise TracingError(f"OTEL_EXPORTER_OTLP_PROTOCOL must be {_PROTOCOL}, got {protocol!r}")
    complaints = _Complaints()
    logger = logging.getLogger("opentelemetry")
    logger.handlers[:] = [complaints]
    logger.propagate = False
    try:
        return _open(service, environ, complaints)
    except ValueError as error:
        raise TracingError(f"OTEL_*: {error}") from error


def _open(service: str, environ: Mapping[str, str], complaints: _Complaints) -> Tracing:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    facts: dict[str, str | int] = {"service.version": VERSION, "process.pid": os.getpid()}
    if not environ.get("OTEL_SERVICE_NAME") and "service.name=" not in environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        facts["service.name"] = service
    exporter = OTLPSpanExporter()
    processor = BatchSpanProcessor(exporter)
    provider = TracerProvider(resource=Resource.create(facts), shutdown_on_exit=False)
    provider.add_span_processor(processor)
    return Tracing(provider.get_tracer("eventstream-stack", VERSION), processor, exporter, complaints)


def tracing_or_exit(service: str) -> Tracing | None:
    """Return `open_tracing(service)`, for a `__main__`: print a problem to stderr and exit with status 2."""
    try:
        return open_tracing(service)
    except TracingError as error:
        sys.stderr.write(f"{service}: {error}\n")
        raise SystemExit(2) from None
