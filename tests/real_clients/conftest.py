"""Common clients on one side of the gateway, scripted upstreams on the other."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.clients.line import Line
from tests.clients.provider import Provider
from tests.kit.routed_gateway import Gateway, running
from tests.real_clients.resuming import Programs, running_programs
from tests.real_clients.source import Source

MODES = ("direct", "resumable")
HEARTBEAT_SECONDS = 0.1


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def source() -> AsyncIterator[Source]:
    async with Source() as source:
        yield source


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def provider() -> AsyncIterator[Provider]:
    async with Provider() as provider:
        yield provider


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def gateway(source: Source, provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    """Yield a gateway with a route `/<mode>` to the source for each mode, and `/models/<mode>` to the provider, with `/telling` below it.

    `/kept` is a resumable route that also keeps answers to GET. A route `telling` reports a lost upstream by an event.
    """
    common = {"heartbeat_seconds": HEARTBEAT_SECONDS}
    routes = [{"path": f"/{mode}", "upstream": source.url, "mode": mode} | common for mode in (*MODES, "shared")]
    routes.append({"path": "/kept", "upstream": source.url, "mode": "resumable", "methods": ["GET", "POST"]} | common)
    for mode in MODES:
        model = {"path": f"/models/{mode}", "upstream": provider.url, "mode": mode} | common
        routes += [model, model | {"path": f"/models/{mode}/telling", "on_upstream_loss": "error-event"}]
    async with running(routes, tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


@pytest_asyncio.fixture(loop_scope="session")
async def line(gateway: Gateway) -> AsyncIterator[Line]:
    """Yield a line of the test's own to the gateway."""
    async with Line(gateway.port) as line:
        yield line


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def programs() -> AsyncIterator[Programs]:
    async with running_programs() as programs:
        yield programs
