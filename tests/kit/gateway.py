"""Run a gateway in the test's process, on a free port."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from gateway.policy.route_table import RouteTable
from gateway.policy.routes import Route
from gateway.policy.settings import Settings
from gateway.server.app import Gateway, run_gateway
from gateway.server.listeners import Listeners, bind_listeners, close_listeners, port_of
from service.tracing import Tracing
from tests.kit.waiting import GUARD_SECONDS


@dataclass(frozen=True)
class Served:
    """A gateway in this process."""

    gateway: Gateway
    port: int
    """The public port."""
    admin: str
    """The URL of the admin port."""


@asynccontextmanager
async def served(options: Settings, table: RouteTable, tracing: Tracing | None = None) -> AsyncIterator[Served]:
    """Serve until the block ends without an error; then it must drain."""
    sets = bind_listeners("127.0.0.1", 0)
    sites: list[web.TCPSite] = []

    def open_admin(runner: web.BaseRunner) -> web.BaseSite:
        sites.append(web.TCPSite(runner, "127.0.0.1", 0))
        return sites[0]

    try:
        async with run_gateway(options, table, Listeners(sets), open_admin, tracing=tracing) as gateway:
            yield Served(gateway, port_of(sets[0]), sites[0].name)
            async with asyncio.timeout(GUARD_SECONDS):
                await gateway.drain()
    finally:
        close_listeners(sets)


@asynccontextmanager
async def serving(routes: Sequence[dict[str, Any]], data_dir: Path, tracing: Tracing | None = None, **settings: Any) -> AsyncIterator[int]:
    """Serve `routes` until the block ends, and yield the public port."""
    table = RouteTable(Route.model_validate(route) for route in routes)
    async with served(Settings(data_dir=data_dir, drain_seconds=0.2, **settings), table, tracing) as running:
        yield running.port
