"""Test that the SDKs of OpenAI and Anthropic stream completions through the gateway as from the provider."""

import pytest

from tests.clients.conftest import MODES
from tests.clients.line import Line
from tests.clients.provider import Provider
from tests.clients.sdks import CLIENTS, LOST, TOLD, Talk, whole
from tests.kit.upstream import Disconnect, Pause, chunk

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.parametrize("client", CLIENTS),
    pytest.mark.parametrize("mode", MODES),
]

BEATS = {"direct": chunk(b":\n\n"), "resumable": chunk(b":\n")}
"""Heartbeats by mode: a block of its own in streams without IDs, a line in streams in which each event has one."""


async def test_sdk_gets_the_answer_token_by_token_and_ignores_heartbeats(mode: str, client: str, provider: Provider, line: Line) -> None:
    pause = Pause()
    model = provider.model(pause)
    talk = Talk(client, f"{line.url}/{mode}", model.name)
    await talk.hears(model.first_half)
    await line.passes(BEATS[mode], times=2)
    pause.go()
    assert await talk.outcome() == whole(client, model)
    assert talk.heard == model.text
    assert len(model.calls) == 1


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
async def test_sdk_raises_when_the_upstream_is_cut(mode: str, client: str, reset: bool, provider: Provider, line: Line) -> None:
    pause = Pause()
    model = provider.model(pause, Disconnect(reset))
    talk = Talk(client, f"{line.url}/{mode}", model.name)
    await talk.hears(model.first_half)
    pause.go()
    with pytest.raises(LOST):
        await talk.outcome()
    assert talk.heard == model.first_half
    assert len(model.calls) == 1


async def test_sdk_raises_when_an_event_reports_the_cut(mode: str, client: str, provider: Provider, line: Line) -> None:
    model = provider.model(Disconnect())
    talk = Talk(client, f"{line.url}/{mode}/telling", model.name)
    with pytest.raises(TOLD, match="Upstream lost"):
        await talk.outcome()
    assert talk.heard == model.first_half
    assert len(model.calls) == 1
