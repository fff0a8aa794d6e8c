"""Run a gateway in the test's process, on a free port."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from gateway.policy.route_table import RouteTable
from gateway.policy.routes import Route
from gateway.policy.settings import Settings
from gateway.server.app import run_gateway
from gateway.server.listeners import Listeners, bind_listeners, close_listeners, port_of
from service.tracing import Tracing

GUARD_SECONDS = 30.0


@asynccontextmanager
async def serving(routes: Sequence[dict[str, Any]], data_dir: Path, tracing: Tracing | None = None, **settings: Any) -> AsyncIterator[int]:
    """Serve `routes` until the block ends, and yield the public port."""
    sets = bind_listeners("127.0.0.1", 0)
    options = Settings(data_dir=data_dir, drain_seconds=0.2, **settings)

    def open_admin(runner: web.BaseRunner) -> web.BaseSite:
        return web.TCPSite(runner, "127.0.0.1", 0)

    table = RouteTable(Route.model_validate(route) for route in routes)
    try:
        async with run_gateway(options, table, Listeners(sets), open_admin, tracing=tracing) as gateway:
            yield port_of(sets[0])
            async with asyncio.timeout(GUARD_SECONDS):
                await gateway.drain()
    finally:
        close_listeners(sets)
