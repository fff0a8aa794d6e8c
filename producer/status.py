"""The status pages: alive, ready, metrics."""

import math

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from prometheus_client import disable_created_metrics, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

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
        meters.note_feeds(len(feeds), feeds.reads, feeds.wakes)
        await _note_log(meters, log)
        return Response(generate_latest(meters.registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return router


async def _note_log(meters: Meters, log: EventLog) -> None:
    """Update the gauges of the event log; the offset of its first event is NaN when it cannot be read."""
    topics = log.topics.values()
    meters.log_events.set(sum(topic.count for topic in topics))
    meters.log_bytes.set(sum(topic.bytes for topic in topics))
    meters.log_topics.set(sum(topic.count > 0 for topic in topics))
    meters.log_last.set(log.last)
    try:
        meters.log_first.set(await log.first())
    except LogError:
        meters.log_first.set(math.nan)
