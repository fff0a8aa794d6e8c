"""A test suite for any proxy for Server-Sent Events, over real sockets.

It runs against the gateway, or against another proxy:
`PROXY_UNDER_TEST='env UPSTREAM={upstream} PORT={port} my-proxy' pytest tests/proxy`. Tests that need the
gateway's settings are then skipped.
"""

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial

import pytest
import pytest_asyncio

from tests.kit.certificates import Authority
from tests.kit.downstream import Answer, Downstream, Fields
from tests.kit.routed_gateway import TEMPLATE, Gateway, Route, running
from tests.kit.stack import refusing
from tests.kit.stage import Scene, Stage

SMALL_BLOCK_BYTES = 1000
IDLE_SECONDS = 1.5


def _routes(upstream: str, unreachable: str, trust: Mapping[str, object]) -> list[Route]:
    def route(path: str, **settings: object) -> Route:
        return {"path": path, "upstream": upstream, "mode": "direct", "heartbeat_seconds": 0} | trust | settings

    return [
        route("/plain"),
        route("/heartbeat", heartbeat_seconds=0.25),
        route("/slow-heartbeat", heartbeat_seconds=1),
        route("/error-event", on_upstream_loss="error-event"),
        route("/error-event/small-blocks", on_upstream_loss="error-event", max_block_bytes=SMALL_BLOCK_BYTES),
        route("/error-event/idle", on_upstream_loss="error-event", idle_timeout_seconds=0.9),
        route("/small-blocks", max_block_bytes=SMALL_BLOCK_BYTES),
        route("/idle", idle_timeout_seconds=IDLE_SECONDS, heartbeat_seconds=0.2),
        route("/first-byte", first_byte_timeout_seconds=1),
        route("/get-and-post", methods=["GET", "POST"]),
        route("/base", upstream=upstream + "/below/this"),
        route("/base/plain"),
        route("/unreachable", upstream=unreachable, ca_file="", connect_timeout_seconds=0.3),
    ]


@dataclass(frozen=True)
class Talk:
    """One request through the proxy: the client's side and the upstream's."""

    downstream: Downstream
    scene: Scene
    method: str

    async def answer(self) -> Answer:
        """Read the response's head."""
        return await self.downstream.answer(self.method)


@contextlib.asynccontextmanager
async def _talk(
    subject: Gateway,
    stage: Stage,
    *script: object,
    target: str = "/plain/stream",
    method: str = "GET",
    headers: Fields = (),
    body: bytes = b"",
    version: str = "1.1",
    read_body: bool = True,
    receive_buffer: int | None = None,
    source: str = "127.0.0.1",
) -> AsyncIterator[Talk]:
    """Connect, send one request that the upstream answers with `script`, and close at the end."""
    scene = stage.scene(*script, read_body=read_body)
    async with Downstream(subject.port, receive_buffer=receive_buffer, source=source) as downstream:
        await downstream.ask(target, method, [*scene.headers, *headers], body, version)
        yield Talk(downstream, scene, method)


Converse = Callable[..., AbstractAsyncContextManager[Talk]]


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=["http"] if TEMPLATE else ["http", "https"])
async def stage(request: pytest.FixtureRequest, authority: Authority) -> AsyncIterator[Stage]:
    async with Stage(authority if request.param == "https" else None) as stage:
        yield stage


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def proxy(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    """Yield the proxy that most tests share."""
    with refusing() as nowhere:
        async with running(_routes(stage.url, nowhere, stage.trust), tmp_path_factory.mktemp("proxy")) as subject:
            yield subject


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def fresh_proxy(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    """Yield a proxy of the module's own, whose memory no other test has touched."""
    with refusing() as nowhere:
        async with running(_routes(stage.url, nowhere, stage.trust), tmp_path_factory.mktemp("fresh"), plain=True) as subject:
            yield subject


@pytest.fixture
def converse(proxy: Gateway, stage: Stage) -> Converse:
    """Return a function: `async with converse(*script, target=…)` sends a request through the shared proxy; see `_talk`."""
    return partial(_talk, proxy, stage)


@pytest.fixture
def converse_freshly(fresh_proxy: Gateway, stage: Stage) -> Converse:
    """Return the same for the module's own proxy."""
    return partial(_talk, fresh_proxy, stage)


@pytest.fixture
def gateway() -> None:
    """Skip tests of features that other proxies name differently or do not have."""
    if TEMPLATE:
        pytest.skip("needs the gateway's settings; PROXY_UNDER_TEST is set")
