"""An upstream that gets another address, as a container does that is made anew."""

import asyncio
from pathlib import Path

import httpx
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from tests.kit.gateway import serving
from tests.kit.upstream import EVENT_STREAM_HEAD, LAST_CHUNK, ScriptedUpstream, chunk
from tests.kit.waiting import GUARD_SECONDS

RETRY_SECONDS = 8.0
"""Less than the 10 s for which addresses are remembered."""


class Resolver(AbstractResolver):
    """Resolves every name to `address`, and notes that it was asked."""

    address = "127.0.0.2"
    asked: asyncio.Event

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        self.asked.set()
        return [ResolveResult(hostname=host, host=self.address, port=port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize(
    "route",
    [
        {"mode": "direct", "connect_timeout_seconds": RETRY_SECONDS},
        {"mode": "resumable", "methods": ["GET"], "connect_timeout_seconds": RETRY_SECONDS},
        {"mode": "shared", "wait_seconds": RETRY_SECONDS},
    ],
    ids=lambda route: str(route["mode"]),
)
async def test_new_address_is_found_by_the_request_that_failed_to_reach_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, route: dict[str, object]
) -> None:
    Resolver.asked = asyncio.Event()
    monkeypatch.setattr(Resolver, "address", "127.0.0.2")
    monkeypatch.setattr("aiohttp.connector.DefaultResolver", lambda loop: Resolver())
    async with ScriptedUpstream([EVENT_STREAM_HEAD, chunk(b"data: x\n\n"), LAST_CHUNK]) as upstream:
        routes = [{"path": "/", "upstream": f"http://moving.test:{upstream.port}"} | route]
        async with serving(routes, tmp_path) as port, httpx.AsyncClient(trust_env=False, timeout=GUARD_SECONDS) as client:
            asking = asyncio.create_task(_status(client, f"http://127.0.0.1:{port}/"))
            await Resolver.asked.wait()
            monkeypatch.setattr(Resolver, "address", "127.0.0.1")
            assert await asking == 200


async def _status(client: httpx.AsyncClient, url: str) -> int:
    async with client.stream("GET", url, headers={"Accept": "text/event-stream"}) as response:
        return response.status_code
