"""Test that clients see no event in heartbeats, nor in the farewell of a stream that the gateway ends."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import httpx
import httpx_sse
import pytest

from tests.clients.conftest import MODES
from tests.clients.line import Line
from tests.clients.provider import KEY, Provider
from tests.clients.sdks import CLIENTS, LOST, PROMPT, Talk, whole
from tests.kit.routed_gateway import running
from tests.kit.upstream import Pause, Silence
from tests.kit.waiting import GUARD_SECONDS

pytestmark = pytest.mark.asyncio(loop_scope="session")

HEARTBEATS = {"direct": b"3\r\n:\n\n\r\n", "resumable": b"2\r\n:\n\r\n"}
"""Heartbeats by mode, as HTTP chunks. The models' events have no IDs; kept streams add IDs."""


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("mode", MODES)
async def test_sdk_ignores_heartbeats(mode: str, client: str, provider: Provider, line: Line) -> None:
    pause = Pause()
    model = provider.model(pause)
    talk = Talk(client, f"{line.url}/{mode}", model.name)
    await talk.hears(model.first_half)
    await line.passes(HEARTBEATS[mode], 2)
    pause.go()
    assert await talk.outcome() == whole(client, model)
    assert talk.heard == model.text


async def read_with_httpx_sse(url: str, model: str, take: Callable[[object], None]) -> None:
    """Pass on the data of each event of a completion, which users of httpx-sse parse as JSON."""
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": PROMPT}]}
    headers = {"Authorization": f"Bearer {KEY}"}
    async with (
        httpx.AsyncClient(trust_env=False, timeout=GUARD_SECONDS) as client,
        httpx_sse.aconnect_sse(client, "POST", f"{url}/v1/chat/completions", json=body, headers=headers) as source,
    ):
        async for event in source.aiter_sse():
            take(event.json())


@pytest.mark.parametrize("mode", MODES)
async def test_clients_of_a_stopping_gateway_get_a_retry_and_see_no_event_in_it(mode: str, provider: Provider, tmp_path: Path) -> None:
    model = provider.model(Silence())
    routes = [{"path": f"/{mode}", "mode": mode, "upstream": provider.url, "heartbeat_seconds": 0}]
    events: list[object] = []
    async with running(routes, tmp_path) as gateway, Line(gateway.port) as line:
        talks = [Talk(client, f"{line.url}/{mode}", model.name) for client in CLIENTS]
        reading = asyncio.create_task(read_with_httpx_sse(f"{line.url}/{mode}", model.name, events.append))
        for talk in talks:
            await talk.hears(model.first_half)
        async with asyncio.timeout(GUARD_SECONDS):
            while len(events) <= len(model.tokens) // 2:  # the first event has the role, not a token
                await asyncio.sleep(0.005)
        await gateway.stop()
        for talk in talks:
            with pytest.raises(LOST):
                await talk.outcome()
            assert talk.heard == model.first_half
        with pytest.raises(httpx.RemoteProtocolError):
            await reading
        assert len(events) == 1 + len(model.tokens) // 2
        assert line.received.count(b"\r\nretry: ") == len(talks) + 1
