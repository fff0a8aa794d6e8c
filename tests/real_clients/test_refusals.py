"""SDKs show the text of the gateway's own refusals, and retry where the gateway says that it helps."""

import contextlib
import socket
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from tests.clients.line import Line
from tests.clients.provider import Provider
from tests.kit.routed_gateway import running
from tests.kit.upstream import EVENT_STREAM_HEAD, Pause
from tests.real_clients.clients import MODELS, Client, each
from tests.real_clients.running import run
from tests.real_clients.source import Source, event
from tests.real_clients.test_models import asking

pytestmark = [pytest.mark.asyncio(loop_scope="session")]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def refusing(source: Source, provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[int]:
    """Yield the port of a gateway: it allows each client one request at a time, with a route that accepts no key and a dead one."""
    directory = tmp_path_factory.mktemp("gateway")
    (directory / "secret").write_text("a secret of thirty-two letters and more")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}"
    routes = [
        {"path": "/source", "upstream": source.url},
        {"path": "/models", "upstream": provider.url, "heartbeat_seconds": 0},
        {"path": "/guarded", "upstream": provider.url, "auth": {"kind": "jwt", "secret_file": str(directory / "secret")}},
        {"path": "/nowhere", "upstream": nowhere, "connect_timeout_seconds": 0.1},
    ]
    async with running(routes, directory, max_streams_per_client=1) as gateway:
        yield gateway.port


@pytest_asyncio.fixture(loop_scope="session")
async def line(refusing: int) -> AsyncIterator[Line]:
    async with Line(refusing) as line:
        yield line


@each(MODELS)
async def test_sdk_shows_why_its_key_is_refused(client: Client, provider: Provider, line: Line) -> None:
    async with run(client, f"{line.url}/guarded", **asking(provider.model().name)) as running:
        error = await running.error()
    assert "token" in error.lower()
    assert running.text == ""


@each(MODELS)
async def test_sdk_shows_that_the_upstream_cannot_be_reached(client: Client, provider: Provider, line: Line) -> None:
    async with run(client, f"{line.url}/nowhere", **asking(provider.model().name)) as running:
        error = await running.error()
    assert "the upstream of route /nowhere" in error
    assert running.text == ""


@each(MODELS, lambda client: client.retries)
async def test_sdk_retries_after_a_temporary_refusal_and_gets_the_answer(
    client: Client, source: Source, provider: Provider, line: Line
) -> None:
    model, held = provider.model(), source.stream([EVENT_STREAM_HEAD, event("held"), Pause()])
    async with httpx.AsyncClient(trust_env=False) as http, contextlib.AsyncExitStack() as stack:
        async with http.stream("GET", f"{line.url}/source/{held.name}"):
            running = await stack.enter_async_context(run(client, f"{line.url}/models", **asking(model.name)))
            await line.passes(b"HTTP/1.1 429 ")
        assert await running.end() in ("stop", "completed")
    assert running.text == model.text
    assert len(model.calls) == 1


@each(MODELS, lambda client: not client.retries)
async def test_sdk_that_does_not_retry_shows_why_it_was_refused(client: Client, source: Source, provider: Provider, line: Line) -> None:
    held = source.stream([EVENT_STREAM_HEAD, event("held"), Pause()])
    async with (
        httpx.AsyncClient(trust_env=False) as http,
        http.stream("GET", f"{line.url}/source/{held.name}"),
        run(client, f"{line.url}/models", **asking(provider.model().name)) as running,
    ):
        error = await running.error()
    assert "429" in error
    assert "open" in error
