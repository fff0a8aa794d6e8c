"""The status pages: alive, ready, metrics."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from prometheus_client import disable_created_metrics, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from .drain import Drain
from .event_log import EventLog, LogError
from .feeds import Feeds
from .meters import Meters


def status_routes(meters: Meters, drain: Drain, log: EventLog, feeds: Feeds) -> APIRouter:
    """Gives `/livez`, `/readyz` (503 while draining) and `/metrics`.

    A log that cannot be written leaves the producer ready: subscribers go on, publishers are told, and `producer_log_writable` says so.
    """
    disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, which nobody asks for
    router = APIRouter(tags=["status"])

    @router.get("/livez", summary="200 as long as the process answers")
    async def livez() -> dict[str, str]:
        return {"status": "alive"}

    @router.get("/readyz", summary="200 when the producer takes streams, 503 while it drains", responses={503: {"description": "Draining"}})
    async def readyz() -> JSONResponse:
        if drain.begun:
            return JSONResponse({"status": "not ready", "reason": "draining"}, 503)
        return JSONResponse({"status": "ready"})

    @router.get("/metrics", summary="Prometheus metrics", response_class=Response)
    async def metrics() -> Response:
        meters.note_feeds(feeds)
        try:
            meters.note_log(log, await log.first())
        except LogError:
            meters.note_log(log, None)
        return Response(generate_latest(meters.registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return router
