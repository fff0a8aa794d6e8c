"""The whole gateway: public and admin port, upstream sessions, and an orderly shutdown."""

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Callable
from functools import partial

import aiohttp
import structlog
from aiohttp import web
from prometheus_client import generate_latest

from service.status import add_status_routes
from service.tracing import Tracing

from ..access.admission import OpenCounts
from ..access.authorization import Authorizer
from ..access.descriptors import Descriptors, limit_of_process
from ..access.exchange import Exchange
from ..access.key_sets import KeySets
from ..http.connection import ClientServer
from ..http.internals import unexpected
from ..http.malformed import OneLineFilter
from ..http.paths import count_connections, make_server, open_following_session, open_session
from ..modes.direct import Direct
from ..modes.resumable.peers import Peers
from ..modes.shared.budgets import Budgets
from ..modes.shared.shared_mode import Shared
from ..observe.dashboard.process import add_dashboard, add_sample
from ..observe.dashboard.snapshot import Sampler
from ..observe.metrics import Metrics
from ..policy.admin_hosts import AdminHosts
from ..policy.deletion import Deletion
from ..policy.route_table import Routes, RouteTable
from ..policy.settings import Settings
from ..policy.trusted_proxies import TrustedProxies
from ..streams.relay import DRAINED
from ..streams.wheel import TimerWheel
from .admin_guard import admin_application
from .limits import make_admission, make_bodies, make_histories
from .listeners import Listeners
from .open_resumable import open_resumable
from .pages import add_pages
from .proxy import Proxy
from .reload import Reload, add_reload
from .routing import Routing

log = structlog.get_logger()

_TICK_SECONDS = 0.001
_LARGEST_STRIDE = 1024  # of the wheel, in ticks
_FLUSHING_PART = 0.2
_POLL_SECONDS = 0.02
_RETURN_AFTER_MS = 1000
_RETURN_SPREAD_MS = 4000
_RETURN_SPREAD_MS_PER_STREAM = 2  # 10,000 subscribers reconnect over 20 s


class Gateway:
    """A running gateway."""

    def __init__(
        self,
        settings: Settings,
        proxy: Proxy,
        server: ClientServer,
        listeners: Listeners,
        metrics: Metrics,
        routing: Routing,
        reload: Reload,
    ) -> None:
        self._settings = settings
        self._proxy = proxy
        self._server = server
        self._listeners = listeners
        self._metrics = metrics
        self.routing = routing
        self.reload = reload
        """Reloads the routes, in a process without a parent that does so."""

    def metrics_text(self) -> str:
        """Return the text of `/metrics`, even after the admin port is closed."""
        return generate_latest(self._metrics.registry).decode()

    async def drain(self) -> None:
        """Stop accepting and end all open requests, within `drain_seconds`.

        Subscriptions get a `retry` time and end at once, at a block boundary. Other answers, such as that to a POST, may run on for four
        fifths of the time, and so do the answers of resumable routes, followed or not. The last fifth is for slow clients to receive what
        was written.
        """
        proxy = self._proxy
        proxy.drain()
        grace = self._settings.drain_seconds
        log.info("draining", open=len(proxy.exchanges), seconds=grace)
        end = asyncio.get_running_loop().time() + grace
        await self._listeners.close()
        await asyncio.sleep(_POLL_SECONDS)  # requests on the last accepted connections get their answers
        spread = max(_RETURN_SPREAD_MS, len(proxy.exchanges) * _RETURN_SPREAD_MS_PER_STREAM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(end - grace * _FLUSHING_PART):
                while proxy.exchanges or (proxy.kept is not None and proxy.kept.running):
                    _end_streams([exchange for exchange in proxy.exchanges if _is_subscription(exchange)], spread)
                    await asyncio.sleep(_POLL_SECONDS)
        _end_streams(list(proxy.exchanges), spread)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(end):
                while any(connection.transport and connection.transport.is_closing() for connection in self._server.connections):
                    await asyncio.sleep(_POLL_SECONDS)
        for connection in self._server.connections:
            if connection.transport is not None:
                connection.transport.abort()


def _is_subscription(exchange: Exchange) -> bool:
    return exchange.method == "GET" and exchange.relay is not None and exchange.mode != "resumable"


def _end_streams(exchanges: list[Exchange], spread: int) -> None:
    for exchange in exchanges:
        relay = exchange.relay
        if relay is None or relay.verdict or not exchange.event_stream:
            continue
        relay.send_retry(random.randint(_RETURN_AFTER_MS, _RETURN_AFTER_MS + spread))
        relay.end(DRAINED)


@contextlib.asynccontextmanager
async def run_gateway(
    settings: Settings,
    routes: RouteTable,
    listeners: Listeners,
    open_admin: Callable[[web.BaseRunner], web.BaseSite],
    counts: OpenCounts | None = None,
    peers: Peers | None = None,
    tracing: Tracing | None = None,
) -> AsyncIterator[Gateway]:
    """Serve while the context is open. At its end, close everything that `Gateway.drain` left open.

    `open_admin` creates the site of the admin port, `counts` are the open requests of all workers, `peers` the other workers.
    Raises OSError if a port is not available.
    """
    if faults := unexpected():
        log.warning("aiohttp has changed, using its documented interface, slower", aiohttp=aiohttp.__version__, changes=faults)
    peers = peers or Peers()
    metrics = Metrics()
    descriptors = Descriptors(limit_of_process())
    async with (
        _open_proxy(settings, Routes(routes), metrics, counts, peers, tracing, descriptors) as (proxy, shared, routing),
        contextlib.AsyncExitStack() as stack,
    ):
        stack.enter_context(metrics.loop_lag.watch())
        reload = Reload(settings, routing.replace, metrics.timeline)
        server = _make_server(settings, proxy, metrics, descriptors)
        sampler = Sampler(proxy, shared, metrics)
        status = web.Application() if peers.path else admin_application(AdminHosts.parse(settings.admin_hosts))
        add_status_routes(status, metrics.registry, proxy.not_ready)
        if not peers.path:  # with peers there is a parent, which has the admin port
            metrics.registry.register(reload)
            add_pages(status, settings.public_url, listeners.port)
            add_dashboard(status, sampler, settings.services)
            add_reload(status, reload)
        else:
            add_sample(status, sampler)
        public = web.ServerRunner(server, shutdown_timeout=1.0)
        admin = web.AppRunner(status, access_log=None, shutdown_timeout=1.0)
        for runner in (public, admin):
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
        await open_admin(admin).start()
        if peers.path:
            await web.UnixSite(public, peers.path).start()
        await listeners.open(public)
        descriptors.measure_own()
        yield Gateway(settings, proxy, server, listeners, metrics, routing, reload)


@contextlib.asynccontextmanager
async def _open_proxy(
    settings: Settings,
    routes: Routes,
    metrics: Metrics,
    counts: OpenCounts | None,
    peers: Peers,
    tracing: Tracing | None,
    descriptors: Descriptors,
) -> AsyncIterator[tuple[Proxy, Shared, Routing]]:
    """Open the proxy with all its modes."""
    wheel = TimerWheel(_TICK_SECONDS, _LARGEST_STRIDE)
    async with (
        open_session(
            keepalive_seconds=settings.upstream_keepalive_seconds,
            max_header_bytes=settings.max_header_bytes,
            note_latency=metrics.note_latency,
        ) as session,
        open_following_session(max_header_bytes=settings.max_header_bytes) as following,
        contextlib.AsyncExitStack() as stack,
    ):
        if tracing is not None:
            stack.push_async_callback(tracing.close)  # closed last, so that all requests that end before have their spans
        bodies, histories = make_bodies(settings), make_histories(settings)
        direct = Direct(session, wheel, metrics, bodies)
        admission = make_admission(settings, counts, descriptors)
        descriptors.count(partial(count_connections, session))
        descriptors.count(partial(count_connections, following), admission.streams.free)
        shared = Shared(following, wheel, Budgets(admission.streams, histories, descriptors), direct, metrics, routes)
        stack.push_async_callback(shared.close)

        def forget(deletion: Deletion) -> None:
            shared.forget(deletion)
            peers.send_deletion(deletion)

        direct.note_deletion = forget
        metrics.watch("gateway_held_body_bytes", lambda: bodies.budget.amount)
        metrics.watch("gateway_shared_streams", lambda: len(shared))
        metrics.watch("gateway_history_bytes", lambda: histories.amount)
        metrics.watch("gateway_history_blocks", lambda: shared.history_blocks)
        key_sets = await stack.enter_async_context(KeySets())
        key_sets.watch(lambda: routes.current.key_urls())
        metrics.registry.register(key_sets)
        authorizer = Authorizer(key_sets, routes)
        proxy = Proxy(routes, direct, shared, admission, descriptors, metrics, settings.max_request_body_bytes, authorizer)
        proxy.tracing = tracing
        metrics.watch("gateway_open_requests", lambda: admission.open)
        metrics.traffic.watch(lambda: proxy.exchanges)
        open_later = partial(
            open_resumable, stack, settings, routes, direct, wheel, metrics, peers, authorizer, admission.streams, histories
        )
        routing = Routing(routes, wheel, shared, proxy, open_later)
        key_sets.fetch(routes.current.key_urls())
        await routing.prepare(routes.current)
        routing.put(routes.current)
        yield proxy, shared, routing


def _make_server(settings: Settings, proxy: Proxy, metrics: Metrics, descriptors: Descriptors) -> ClientServer:
    logging.getLogger("aiohttp.server").addFilter(OneLineFilter())
    server = make_server(
        proxy.handle,
        trusted=TrustedProxies.parse(settings.trusted_proxies),
        keepalive_seconds=settings.keepalive_seconds,
        head_seconds=settings.head_seconds,
        max_header_bytes=settings.max_header_bytes,
        rejected=metrics.rejected,
        full=descriptors.refuse_client,
    )
    descriptors.count(server.count_connections, server.close_idle)
    return server
