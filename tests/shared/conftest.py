"""One upstream and one gateway in mode shared for most tests of this directory; each test has topics of its own."""

import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.kit.certificates import Authority
from tests.kit.routed_gateway import Gateway, Route, running, shared
from tests.shared.subscribing import Subscriber, joined
from tests.shared.upstream import Topic, Upstream

BEAT_SECONDS = 0.25
LIMIT_SECONDS = 2
"""Of a connection; it may end before the last of many subscribers has joined, when the machine is busy."""


BOTH_SCHEMES = pytest.mark.parametrize("upstream", ["http", "https"], indirect=True, scope="session")
"""For modules whose tests are about how connections to the upstream end."""


def _routes(upstream: str, trust: Mapping[str, object]) -> list[Route]:
    everybody = {"response_headers": {"Access-Control-Allow-Origin": "*"}}
    routes = [
        shared("/live", upstream),
        shared("/brief", upstream, linger_seconds=0.3),
        shared("/history", upstream, initial="history"),
        shared("/some", upstream, history_max_blocks=50),
        shared("/short", upstream, history_max_blocks=5, initial="history"),
        shared("/short-silent", upstream, history_max_blocks=5, gap_events=False),
        shared("/small", upstream, history_max_bytes=300_000),
        shared("/young", upstream, history_max_age_seconds=0.5, initial="history"),
        shared("/assign", upstream, ids="assign"),
        shared("/assign-short", upstream, ids="assign", history_max_blocks=5),
        shared("/silent", upstream, gap_events=False),
        shared("/beat", upstream, heartbeat_seconds=BEAT_SECONDS),
        shared("/public", upstream, public=True),
        shared("/by-authorization", upstream, share_by=["authorization"]),
        shared("/by-both", upstream, share_by=["Authorization", "cookie"]),
        shared("/by-tenant", upstream, share_by=["x-tenant"]),
        shared("/everybody", upstream, **everybody),
        shared("/limited", upstream, max_connection_seconds=LIMIT_SECONDS, initial="history"),
        shared("/error-event", upstream, on_upstream_loss="error-event"),
        shared("/small-blocks", upstream, max_block_bytes=1000),
        shared("/idle", upstream, idle_timeout_seconds=1),
        shared("/impatient", upstream, wait_seconds=0),
        shared("/half-second", upstream, wait_seconds=0.5),
        shared("/from", upstream, begin_parameters=["from"]),
    ]
    return [route | trust for route in routes]


@dataclass(frozen=True)
class Stage:
    """The gateway, and the topics behind it."""

    gateway: Gateway
    upstream: Upstream
    _numbers: "itertools.count[int]"

    def topic(self, route: str = "/live", **options: object) -> Topic:
        """Return a new topic below the path of a route; options are those of `Topic`."""
        return self.upstream.add(Topic(f"{route}/{next(self._numbers)}", **options))  # type: ignore[arg-type]

    def subscriber(self, topic: Topic, query: str = "", **options: object) -> Subscriber:
        """Return a subscriber that has not connected yet; options are those of `Subscriber`."""
        return Subscriber(self.gateway.port, topic.path + query, **options)  # type: ignore[arg-type]

    @contextlib.asynccontextmanager
    async def join(self, topic: Topic, query: str = "", **options: object) -> AsyncIterator[Subscriber]:
        """Yield a subscriber that has joined, and disconnect it at the end."""
        async with self.subscriber(topic, query, **options) as subscriber:
            yield await subscriber.join()

    def joined(self, topic: Topic, count: int) -> AbstractAsyncContextManager[list[Subscriber]]:
        """Yield several subscribers that have joined."""
        return joined(self.gateway.port, topic.path, count)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def upstream(request: pytest.FixtureRequest, authority: Authority) -> AsyncIterator[Upstream]:
    async with Upstream(authority if getattr(request, "param", "http") == "https" else None) as upstream:
        yield upstream


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stage(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with running(_routes(upstream.url, upstream.trust), tmp_path_factory.mktemp("shared")) as gateway:
        yield Stage(gateway, upstream, itertools.count(1))


StartStage = Callable[..., AbstractAsyncContextManager[Stage]]


@pytest.fixture
def start_stage(tmp_path_factory: pytest.TempPathFactory) -> StartStage:
    """Return a function: `async with start_stage({key: value}, **settings)` runs an own upstream and gateway with the route `/`."""

    @contextlib.asynccontextmanager
    async def start(route: Route | None = None, **settings: object) -> AsyncIterator[Stage]:
        directory = tmp_path_factory.mktemp("shared")
        async with Upstream() as upstream, running([shared("/", upstream.url, **(route or {}))], directory, **settings) as gateway:
            yield Stage(gateway, upstream, itertools.count(1))

    return start
