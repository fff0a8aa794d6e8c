"""The status pages: alive, ready, metrics."""

import math
from collections.abc import Iterator

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from prometheus_client import disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from .log.event_log import EventLog, LogError
from .topics.feeds import Feeds
from .web.drain import Drain
from .web.meters import Meters


def status_routes(meters: Meters, drain: Drain, log: EventLog, feeds: Feeds) -> APIRouter:
    """Return the routes `/livez`, `/readyz` (503 while draining) and `/metrics`.

    When the log cannot be written the producer stays ready: subscribers continue, publishers get an error,
    and `producer_log_writable` is 0.
    """
    disable_created_metrics()  # type: ignore[no-untyped-call]  # a useless second series for each counter
    router = APIRouter(tags=["status"])
    state = LogState(log, feeds)
    meters.registry.register(state)

    @router.get("/livez", summary="200 while the process answers")
    async def livez() -> dict[str, str]:
        return {"status": "alive"}

    @router.get("/readyz", summary="200 when the producer takes streams, 503 while it drains", responses={503: {"description": "Draining"}})
    async def readyz() -> JSONResponse:
        if drain.begun:
            return JSONResponse({"status": "not ready", "reason": "draining"}, 503)
        return JSONResponse({"status": "ready"})

    @router.get("/metrics", summary="Prometheus metrics", response_class=Response)
    async def metrics() -> Response:
        await state.refresh()
        return Response(generate_latest(meters.registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return router


class LogState(Collector):
    """Read the state of the event log and of its feeds on each scrape."""

    def __init__(self, log: EventLog, feeds: Feeds) -> None:
        self._log = log
        self._feeds = feeds
        self._first: float = 0

    async def refresh(self) -> None:
        """Look for the oldest event, whose offset is NaN when it cannot be read."""
        try:
            self._first = await self._log.first()
        except LogError:
            self._first = math.nan

    def collect(self) -> Iterator[Metric]:
        topics = self._log.topics.values()
        yield GaugeMetricFamily("producer_log_events", "Events in the event log.", sum(topic.count for topic in topics))
        yield GaugeMetricFamily("producer_log_bytes", "Bytes of the blocks in the event log.", sum(topic.bytes for topic in topics))
        yield GaugeMetricFamily("producer_log_topics", "Topics that have events.", sum(topic.count > 0 for topic in topics))
        yield GaugeMetricFamily("producer_log_first_offset", "Offset of the oldest event, NaN when it cannot be read.", self._first)
        yield GaugeMetricFamily("producer_log_last_offset", "Offset of the newest event.", self._log.last)
        yield GaugeMetricFamily("producer_feeds_open", "Sets of patterns with a subscriber.", len(self._feeds))
        yield CounterMetricFamily("producer_feed_reads", "Reads of the event log for subscribers.", self._feeds.counts.reads)
        yield CounterMetricFamily("producer_feed_wakes", "Waiting subscribers that events woke.", self._feeds.counts.wakes)
