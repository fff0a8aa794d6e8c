"""The status pages of a service that is built on aiohttp: alive, ready, metrics."""

from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client import CollectorRegistry, disable_created_metrics, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4


def add_status_routes(
    app: web.Application,
    registry: CollectorRegistry,
    not_ready: Callable[[], Awaitable[str | None]],
    *,
    refresh: Callable[[], Awaitable[object]] | None = None,
) -> None:
    """Add `/livez`, `/readyz` and `/metrics` to `app`.

    `not_ready` returns the reason why the service should get no requests (`/readyz` is then 503 with it), or None when it is ready.
    `refresh` updates the metrics before they are read. `/livez` is 200 as long as the event loop answers.
    """

    disable_created_metrics()  # type: ignore[no-untyped-call]  # a useless second series for each counter

    async def livez(_request: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def readyz(_request: web.Request) -> web.Response:
        reason = await not_ready()
        if reason is None:
            return web.json_response({"status": "ready"})
        return web.json_response({"status": "not ready", "reason": reason}, status=503)

    async def metrics(_request: web.Request) -> web.Response:
        if refresh is not None:
            await refresh()
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    app.router.add_get("/livez", livez)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)
