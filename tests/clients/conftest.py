"""Fixtures: real clients on one side of the gateway, a language model's server on the other."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.clients.line import Line
from tests.clients.provider import Provider
from tests.kit.routed_gateway import Gateway, Route, running

MODES = ("direct", "resumable")


def _routes(upstream: str) -> list[Route]:
    common = {"upstream": upstream, "heartbeat_seconds": 0.1}
    plain = [{"path": f"/{mode}", "mode": mode} | common for mode in MODES]
    telling = [{"path": f"/{mode}/telling", "mode": mode, "on_upstream_loss": "error-event"} | common for mode in MODES]
    return plain + telling


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def provider() -> AsyncIterator[Provider]:
    async with Provider() as provider:
        yield provider


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def model_gateway(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    """Run a gateway in front of the provider, with routes `/<mode>` and `/<mode>/telling`, which reports a lost upstream by an event."""
    async with running(_routes(provider.url), tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


@pytest_asyncio.fixture(loop_scope="session")
async def line(model_gateway: Gateway) -> AsyncIterator[Line]:
    """Yield a separate line to the gateway."""
    async with Line(model_gateway.port) as line:
        yield line
