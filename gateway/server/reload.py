"""Reload routes while the gateway runs: read and check them, then replace the old ones, or reject them with a reason."""

import asyncio
import contextlib
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import asdict

import structlog
from aiohttp import web
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from ..http.problems import problem
from ..observe.timeline import NOT_RELOADED, RELOADED, Timeline
from ..policy.route_table import RouteChanges, RouteError, RouteTable, read_routes
from ..policy.settings import Settings

log = structlog.get_logger()

DRAINING = "the gateway is shutting down"


class ReloadFailed(Exception):
    """The routes are valid but cannot be served. The message gives the reason."""


class Reload(Collector):
    """Reload GATEWAY_CONFIG, one reload at a time, and count the results.

    `replace` puts a table into force everywhere, or nowhere and raises ReloadFailed. Both outcomes are marked on `timeline`.
    """

    def __init__(self, settings: Settings, replace: Callable[[RouteTable], Awaitable[RouteChanges]], timeline: Timeline) -> None:
        self._settings = settings
        self._replace = replace
        self._timeline = timeline
        self._turn = asyncio.Lock()
        self._results = Counter({"done": 0, "refused": 0})
        self._loaded_at = time.time()

    def __repr__(self) -> str:
        return f"<Reload {dict(self._results)}>"

    async def reload(self) -> RouteChanges:
        """Reload the routes and return the changes. Raises RouteError or ReloadFailed if the old routes stay in force."""
        async with self._turn:
            try:
                changes = await self._replace(self._read())
            except (RouteError, ReloadFailed) as error:
                self._results["refused"] += 1
                self._timeline.mark(NOT_RELOADED, "", detail=str(error))
                log.error("routes not reloaded; the old ones stay in force", reason=str(error))
                raise
            self._results["done"] += 1
            self._loaded_at = time.time()
            self._timeline.mark(RELOADED, "", detail=_describe(changes))
        log.info("routes reloaded", **asdict(changes))
        return changes

    def _read(self) -> RouteTable:
        if self._settings.config is None:
            raise RouteError("GATEWAY_CONFIG is not set, so there is no file to reload")
        return read_routes(self._settings.config, self._settings.upstream)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics for Prometheus."""
        reloads = CounterMetricFamily("gateway_reloads_total", "Reloads of the routes, by result.", labels=["result"])
        for result, count in self._results.items():
            reloads.add_metric([result], count)
        yield reloads
        yield GaugeMetricFamily(
            "gateway_config_loaded_timestamp_seconds", "Unix time at which the current routes were loaded.", self._loaded_at
        )

    @contextlib.asynccontextmanager
    async def at_hangup(self) -> AsyncIterator[None]:
        """Reload at each SIGHUP while the context is open, including one that was blocked before. Later ones are blocked again."""
        wanted = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, wanted.set)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        reloading = asyncio.create_task(self._reload_at(wanted))
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # without the loop's handler, SIGHUP would end the process
            reloading.cancel()

    async def _reload_at(self, wanted: asyncio.Event) -> None:
        while await wanted.wait():
            wanted.clear()
            with contextlib.suppress(RouteError, ReloadFailed):  # already logged
                await self.reload()


def _describe(changes: RouteChanges) -> str:
    return "; ".join(f"{what} {', '.join(paths)}" for what, paths in asdict(changes).items() if paths) or "no changes"


def add_reload(app: web.Application, reload: Reload) -> None:
    """Add `POST /reload`: 200 with the paths of added, removed and changed routes; 422 or 503 with the reason why the old ones stay."""

    async def answer(_request: web.Request) -> web.Response:
        try:
            changes = await reload.reload()
        except RouteError as error:
            return problem(422, str(error))
        except ReloadFailed as error:
            return problem(503, str(error))
        return web.json_response(asdict(changes), headers={"Cache-Control": "no-store"})

    app.router.add_post("/reload", answer)
