"""SDKs for language models stream through the gateway, and show the gateway's text of errors."""

from typing import Any

import pytest

from tests.clients.line import Line
from tests.clients.provider import KEY, Provider
from tests.kit.upstream import Disconnect, Pause
from tests.real_clients.clients import MODELS, Client, each
from tests.real_clients.conftest import MODES
from tests.real_clients.running import run

pytestmark = pytest.mark.asyncio(loop_scope="session")

HEARTBEAT = b"\r\n:\n"


def asking(model: str) -> dict[str, Any]:
    """Return the options of a client that requests this model."""
    return {"model": model, "key": KEY, "prompt": "Was macht der Strom?"}


@pytest.mark.parametrize("mode", MODES)
@each(MODELS)
async def test_sdk_gets_the_whole_answer_once_between_heartbeats(client: Client, mode: str, provider: Provider, line: Line) -> None:
    pause = Pause()
    model = provider.model(pause)
    async with run(client, f"{line.url}/models/{mode}", **asking(model.name)) as running:
        await running.hears_text(model.first_half)
        await line.passes(HEARTBEAT, times=2)
        pause.go()
        end = await running.end()
    assert running.text == model.text
    assert end in ("stop", "completed")
    assert len(model.calls) == 1


@pytest.mark.parametrize("mode", MODES)
@each(MODELS)
async def test_sdk_shows_an_error_when_the_upstream_was_cut(client: Client, mode: str, provider: Provider, line: Line) -> None:
    model = provider.model(Disconnect())
    async with run(client, f"{line.url}/models/{mode}", **asking(model.name)) as running:
        await running.error()
    assert running.text == model.first_half
    assert len(model.calls) == 1


@pytest.mark.parametrize("mode", MODES)
@each(MODELS)
async def test_sdk_shows_the_message_of_an_error_event(client: Client, mode: str, provider: Provider, line: Line) -> None:
    model = provider.model(Disconnect())
    async with run(client, f"{line.url}/models/{mode}/telling", **asking(model.name)) as running:
        error = await running.error()
    assert "Upstream lost" in error or (mode == "resumable" and not client.errors_behind_ids)
    assert running.text == model.first_half
    assert len(model.calls) == 1
