"""Serve the admin port of a gateway with workers: their answers, combined."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import aiohttp
from aiohttp import web
from prometheus_client import CollectorRegistry, Metric, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from ...http.problems import problem
from ...policy.admin_hosts import AdminHosts
from ...policy.settings import Settings
from ..admin_guard import admin_application
from ..pages import add_pages
from ..reload import Reload, add_reload
from .dashboard import add_dashboard_of_workers
from .process import Crew, Worker


class _ParentFigures(Collector):
    """Metrics that only the parent knows."""

    def __init__(self, workers: Crew) -> None:
        self._workers = workers

    def collect(self) -> Iterator[Metric]:
        ready = sum(worker.state == "ready" for worker in self._workers.workers)
        yield GaugeMetricFamily("gateway_workers_ready", "Workers that are ready.", ready)
        yield CounterMetricFamily("gateway_worker_restarts_total", "Restarts of workers.", self._workers.restarts)


class _Admin:
    def __init__(self, workers: Crew, reload: Reload) -> None:
        self._workers = workers
        self._registry = CollectorRegistry()
        self._registry.register(reload)
        self._registry.register(workers.totals)
        self._registry.register(_ParentFigures(workers))

    async def livez(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def readyz(self, _request: web.Request) -> web.Response:
        reasons = ["draining"] if self._workers.draining else await asyncio.gather(*map(_not_ready, self._workers.workers))
        reason = "; ".join(reason for reason in reasons if reason)
        if not reason:
            return web.json_response({"status": "ready"})
        return web.json_response({"status": "not ready", "reason": reason}, status=503)

    async def metrics(self, _request: web.Request) -> web.Response:
        await self._workers.ask_for_figures()
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    async def worker(self, request: web.Request) -> web.Response:
        """Return the answer of one worker's admin endpoints."""
        number, workers = int(request.match_info["number"]), self._workers.workers
        if number >= len(workers):
            return problem(404, f"worker numbers are 0 to {len(workers) - 1}, got {number}")
        _, _, target = request.raw_path.removeprefix("/workers/").partition("/")
        try:
            status, media_type, body = await workers[number].ask(f"/{target}", request.method, await request.read())
        except (TimeoutError, aiohttp.ClientError):
            return problem(503, f"worker {number} does not answer; it is {workers[number].state}")
        return web.Response(status=status, headers={"Content-Type": media_type}, body=body)


async def _not_ready(worker: Worker) -> str | None:
    """Return why a worker is not ready, None if it is."""
    if worker.state != "ready":
        return f"worker {worker.number} is {worker.state}"
    try:
        status, _, body = await worker.ask("/readyz")
    except (TimeoutError, aiohttp.ClientError):
        return f"worker {worker.number} does not answer"
    return None if status == 200 else f"worker {worker.number}: {body.decode()}"


@contextlib.asynccontextmanager
async def serve_admin(workers: Crew, settings: Settings, public_port: int, reload: Reload) -> AsyncIterator[str]:
    """Serve `/livez`, `/readyz`, `/metrics`, `/reload`, the pages, and each worker's admin endpoints below `/workers/<number>/`.

    Yields the URL. Raises OSError if the port cannot be bound.
    """
    disable_created_metrics()  # type: ignore[no-untyped-call]
    admin = _Admin(workers, reload)
    app = admin_application(AdminHosts.parse(settings.admin_hosts))
    app.router.add_get("/livez", admin.livez)
    app.router.add_get("/readyz", admin.readyz)
    app.router.add_get("/metrics", admin.metrics)
    app.router.add_route("*", "/workers/{number:[0-9]{1,4}}/{target:.*}", admin.worker)
    add_reload(app, reload)
    add_pages(app, settings.public_url, public_port)
    add_dashboard_of_workers(app, workers, settings.services)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.admin_host, settings.admin_port)
        await site.start()
        yield site.name
    finally:
        await runner.cleanup()
