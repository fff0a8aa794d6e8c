"""One upstream and one gateway with resumable routes for most tests of this directory; each test has scenes of its own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.kit.certificates import Authority
from tests.kit.downstream import Answer, Downstream, Fields
from tests.kit.routed_gateway import Gateway, Route, running
from tests.kit.stage import Scene, Stage

BODY = b'{"message": "hello"}'
JSON = ("Content-Type", "application/json")


def resumable(path: str, upstream: str, **keys: object) -> Route:
    """Return a route; heartbeats are off unless `keys` set them."""
    return {"path": path, "upstream": upstream, "mode": "resumable", "heartbeat_seconds": 0} | keys


BOTH_SCHEMES = pytest.mark.parametrize("play", ["http", "https"], indirect=True, scope="session")
"""For modules whose tests are about how connections to the upstream end."""


def _routes(upstream: str, trust: Mapping[str, object]) -> list[Route]:
    routes = [
        resumable("/ask", upstream),
        resumable("/beat", upstream, heartbeat_seconds=0.25),
        resumable("/error-event", upstream, on_upstream_loss="error-event"),
        resumable("/small", upstream, max_stream_bytes=2000),
        resumable("/brief", upstream, retain_seconds=0.2),
        resumable("/paid", upstream, orphan_seconds=0),
        resumable("/orphan", upstream, orphan_seconds=0.5),
        resumable("/get", upstream, methods=["GET", "POST"]),
        resumable("/late", upstream, first_byte_timeout_seconds=0.3),
    ]
    return [route | trust for route in routes]


@dataclass(frozen=True)
class Play:
    """The gateway and the upstream behind it."""

    subject: Gateway
    stage: Stage

    @contextlib.asynccontextmanager
    async def ask(
        self, target: str, scene: Scene | None = None, *, method: str = "POST", headers: Fields = (), body: bytes = BODY
    ) -> AsyncIterator[Answer]:
        """Send a request on a connection of its own, and yield its answer with the head."""
        async with Downstream(self.subject.port) as downstream:
            fields = [*(scene.headers if scene is not None else ()), *headers]
            await downstream.ask(target, method, [JSON, *fields] if body else fields, body)
            yield await downstream.answer(method)

    @contextlib.asynccontextmanager
    async def ask_without_answer(self, target: str, scene: Scene, *, headers: Fields = (), body: bytes = BODY) -> AsyncIterator[None]:
        """Send a request whose connection is closed at the end, answered or not."""
        async with self.asked(target, "POST", scene, headers=headers, body=body):
            yield

    @contextlib.asynccontextmanager
    async def asked(
        self, target: str, method: str = "GET", scene: Scene | None = None, *, headers: Fields = (), body: bytes = b""
    ) -> AsyncIterator[Downstream]:
        """Send a request on a connection of its own, and yield that before the answer."""
        async with Downstream(self.subject.port) as downstream:
            fields = [*(scene.headers if scene is not None else ()), *headers]
            await downstream.ask(target, method, [JSON, *fields] if body else fields, body)
            yield downstream

    async def state(self, stream: str, headers: Fields = ()) -> dict[str, str]:
        """Return a stream's state from HEAD, by field name in lower case."""
        async with self.ask(f"/streams/{stream}", method="HEAD", headers=headers, body=b"") as answer:
            fields = {name.lower(): value for name, value in answer.head.fields}
            return fields | {"status": str(answer.head.status)}

    async def reaches(self, stream: str, state: str, headers: Fields = ()) -> dict[str, str]:
        """Return when the stream is in this state."""
        return await self.waits(stream, lambda fields: fields.get("stream-state") == state, headers)

    async def waits(self, stream: str, fact: Callable[[dict[str, str]], bool], headers: Fields = ()) -> dict[str, str]:
        """Return when the stream's state from HEAD makes `fact` true."""
        async with asyncio.timeout(30):
            while not fact(fields := await self.state(stream, headers)):
                await asyncio.sleep(0.02)
        return fields


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def play(request: pytest.FixtureRequest, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Play]:
    directory = tmp_path_factory.mktemp("resumable")
    secure = getattr(request, "param", "http") == "https"
    async with (
        Stage(authority if secure else None) as stage,
        running(_routes(stage.url, stage.trust), directory) as subject,
    ):
        yield Play(subject, stage)


StartPlay = Callable[..., AbstractAsyncContextManager[Play]]


@pytest.fixture
def start_play(tmp_path: Path) -> StartPlay:
    """Return a function: `async with start_play(key=value)` runs an upstream and a gateway of the test's own, with one route. A second
    start finds the data directory of the first. `settings` are those of the gateway."""

    @contextlib.asynccontextmanager
    async def start(settings: dict[str, object] | None = None, path: str = "/", **keys: object) -> AsyncIterator[Play]:
        async with Stage() as stage, running([resumable(path, stage.url, **keys)], tmp_path, **(settings or {})) as subject:
            yield Play(subject, stage)

    return start
