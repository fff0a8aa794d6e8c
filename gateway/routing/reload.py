"""New routes while the gateway runs: read again, checked, and put in the place of the old ones, or refused with a reason."""

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

from ..dashboard.timeline import NOT_RELOADED, RELOADED, Timeline
from ..problems import problem
from ..settings import Settings
from .changes import RouteChanges
from .route_table import RouteError, RouteTable, read_routes

log = structlog.get_logger()

DRAINING = "the gateway is shutting down"


class ReloadFailed(Exception):
    """The routes are right, and yet cannot be put in place; the message says what is in the way."""


class Reload(Collector):
    """Reads GATEWAY_CONFIG again, one time after the other, and counts how that went.

    `replace` puts a table in place everywhere, or nowhere and raises ReloadFailed. `timeline` is marked either way.
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
        """Gives what is different now. Raises RouteError or ReloadFailed, when nothing is."""
        async with self._turn:
            try:
                changes = await self._replace(self._read())
            except (RouteError, ReloadFailed) as error:
                self._results["refused"] += 1
                self._timeline.mark(NOT_RELOADED, "", detail=str(error))
                log.error("routes not reloaded, the old ones hold", reason=str(error))
                raise
            self._results["done"] += 1
            self._loaded_at = time.time()
            self._timeline.mark(RELOADED, "", detail=_describe(changes))
        log.info("routes reloaded", **asdict(changes))
        return changes

    def _read(self) -> RouteTable:
        if self._settings.config is None:
            raise RouteError("GATEWAY_CONFIG is not set, so there is no file to read again")
        return read_routes(self._settings.config, self._settings.upstream)

    def collect(self) -> Iterator[Metric]:
        """Gives the figures for Prometheus."""
        reloads = CounterMetricFamily("gateway_reloads_total", "Times that the routes were read again, by result.", labels=["result"])
        for result, count in self._results.items():
            reloads.add_metric([result], count)
        yield reloads
        yield GaugeMetricFamily("gateway_config_loaded_timestamp_seconds", "When the routes that hold were read.", self._loaded_at)

    @contextlib.asynccontextmanager
    async def at_hangup(self) -> AsyncIterator[None]:
        """Reloads at each SIGHUP while the context is open. One that was blocked until then counts, those that come later do not."""
        wanted = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, wanted.set)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        heeding = asyncio.create_task(self._heed(wanted))
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # it would end the process when the loop is closed
            heeding.cancel()

    async def _heed(self, wanted: asyncio.Event) -> None:
        while await wanted.wait():
            wanted.clear()
            with contextlib.suppress(RouteError, ReloadFailed):  # the log says it
                await self.reload()


def _describe(changes: RouteChanges) -> str:
    return "; ".join(f"{what} {', '.join(paths)}" for what, paths in asdict(changes).items() if paths) or "nothing is different"


def add_reload(app: web.Application, reload: Reload) -> None:
    """Adds `POST /reload`: 200 with the paths of routes that were added, removed and changed, or why the old ones hold, 422 or 503."""

    async def answer(_request: web.Request) -> web.Response:
        try:
            changes = await reload.reload()
        except RouteError as error:
            return problem(422, str(error))
        except ReloadFailed as error:
            return problem(503, str(error))
        return web.json_response(asdict(changes), headers={"Cache-Control": "no-store"})

    app.router.add_post("/reload", answer)
