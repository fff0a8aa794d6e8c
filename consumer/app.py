"""The status port: readiness and metrics."""

import time
from collections.abc import Iterator

from aiohttp import web
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.process_metrics import add_process_metrics
from service.status import add_status_routes

from .worker import Worker

_STATES = ("connecting", "open", "finished", "refused", "closed")


def create_app(worker: Worker, metrics: "WorkerMetrics") -> web.Application:
    """Return the status pages of `worker`."""

    async def not_ready() -> str | None:
        return worker.not_ready()

    app = web.Application()
    add_status_routes(app, metrics.registry, not_ready)
    return app


class WorkerMetrics(Collector):
    """Read a worker's counts on each scrape."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.registry = CollectorRegistry()
        self.loop_lag = add_process_metrics("consumer", self.registry)
        write = Histogram(
            "consumer_write_seconds",
            "Time until a group of lines, written as one, was durable.",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
            registry=self.registry,
        )
        worker.watch_writes(write.observe)
        self.registry.register(self)

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("consumer_ready", "1 when events can be logged.", self._worker.not_ready() is None)
        yield from self._source_metrics()
        yield from self._log_metrics()

    def _source_metrics(self) -> Iterator[Metric]:
        subscription, intake = self._worker.subscription, self._worker.intake
        if subscription is None or intake is None:
            return
        state = GaugeMetricFamily("consumer_source_state", "1 for the current state of the source.", labels=["state"])
        for name in _STATES:
            state.add_metric([name], name == subscription.state)
        yield state
        yield GaugeMetricFamily("consumer_connected", "1 while an event stream is open.", subscription.state == "open")
        yield CounterMetricFamily("consumer_reconnections", "Event streams opened after the first.", max(subscription.connections - 1, 0))
        yield CounterMetricFamily("consumer_received_bytes", "Bytes of event stream received.", subscription.bytes_received)
        yield CounterMetricFamily("consumer_events", "Events received, without repeats.", intake.tally.events)
        yield CounterMetricFamily("consumer_duplicates_dropped", "Repeats dropped.", intake.tally.duplicates)
        yield CounterMetricFamily("consumer_gaps", "Gap records written.", intake.tally.gaps)
        yield CounterMetricFamily("consumer_missed_events", "Events known to be missing, over all gaps.", intake.tally.missed)
        if intake.tally.last_received is not None:
            lag = max(time.time() - intake.tally.last_received, 0.0)
            yield GaugeMetricFamily("consumer_last_event_age_seconds", "Time since the newest event.", lag)
        error = GaugeMetricFamily("consumer_last_error", "1 for the newest reason why the source was not connected.", labels=["reason"])
        if subscription.last_error:
            error.add_metric([subscription.last_error], 1)
        yield error

    def _log_metrics(self) -> Iterator[Metric]:
        writer, output = self._worker.writer, self._worker.output
        if writer is not None:
            yield CounterMetricFamily("consumer_durable_lines", "Durable lines of the log.", writer.durable)
            yield GaugeMetricFamily("consumer_pending_bytes", "Bytes of lines that are not durable yet.", writer.pending_bytes)
            yield GaugeMetricFamily("consumer_log_writable", "1 unless the newest write to the log failed.", writer.failure is None)
        if output is not None:
            yield CounterMetricFamily("consumer_stdout_left_out_lines", "Lines left out of standard output.", output.left_out)
