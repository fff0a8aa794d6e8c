"""Serve the admin port of a gateway with workers: their answers, combined."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import web
from prometheus_client import CollectorRegistry, Gauge

from service.status import add_status_routes

from ...policy.admin_hosts import AdminHosts
from ...policy.settings import Settings
from ..admin_guard import admin_application
from ..pages import add_pages
from ..reload import Reload, add_reload
from .dashboard import add_dashboard_of_workers, answer_of, find_worker
from .pool import WorkerPool
from .process import Worker


@contextlib.asynccontextmanager
async def serve_admin(pool: WorkerPool, settings: Settings, public_port: int, reload: Reload) -> AsyncIterator[str]:
    """Serve `/livez`, `/readyz`, `/metrics`, `/reload`, the pages, and each worker's admin endpoints below `/workers/<number>/`.

    Yields the URL. Raises OSError if the port cannot be bound.
    """
    registry = CollectorRegistry()
    for collector in (reload, pool.totals, pool.restarts):
        registry.register(collector)
    ready = Gauge("gateway_workers_ready", "Workers that are ready.", registry=registry)
    ready.set_function(lambda: sum(worker.state == "ready" for worker in pool.workers))

    async def not_ready() -> str | None:
        reasons = ["draining"] if pool.draining else await asyncio.gather(*map(_not_ready, pool.workers))
        return "; ".join(reason for reason in reasons if reason) or None

    async def ask_worker(request: web.Request) -> web.Response:
        worker = find_worker(pool, request.match_info["number"])
        if not isinstance(worker, Worker):
            return worker
        _, _, target = request.raw_path.removeprefix("/workers/").partition("/")
        return await answer_of(worker, f"/{target}", request.method, await request.read())

    app = admin_application(AdminHosts.parse(settings.admin_hosts))
    add_status_routes(app, registry, not_ready, refresh=pool.update_totals)
    app.router.add_route("*", "/workers/{number:[0-9]{1,4}}/{target:.*}", ask_worker)
    add_reload(app, reload)
    add_pages(app, settings.public_url, public_port)
    add_dashboard_of_workers(app, pool, settings.services)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.admin_host, settings.admin_port)
        await site.start()
        yield site.name
    finally:
        await runner.cleanup()


async def _not_ready(worker: Worker) -> str | None:
    """Return why a worker is not ready, None if it is."""
    if worker.state != "ready":
        return f"worker {worker.number} is {worker.state}"
    try:
        status, _, body = await worker.ask("/readyz")
    except (TimeoutError, aiohttp.ClientError):
        return f"worker {worker.number} does not answer"
    return None if status == 200 else f"worker {worker.number}: {body.decode()}"
