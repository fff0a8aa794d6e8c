"""Test that SDKs ignore comments and blank lines between the events of a completion."""

import pytest

from tests.clients.conftest import MODES
from tests.clients.line import Line
from tests.clients.provider import Provider
from tests.clients.sdks import CLIENTS, Talk, whole
from tests.kit.upstream import chunk

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.parametrize("client", CLIENTS)]


@pytest.mark.parametrize("mode", MODES)
async def test_sdk_ignores_comments_between_events(mode: str, client: str, provider: Provider, line: Line) -> None:
    model = provider.model(chunk(b": OPENROUTER PROCESSING\n\n"), chunk(b"\n"), chunk(b": and again\n\n: and again\n\n"))
    talk = Talk(client, f"{line.url}/{mode}", model.name)
    assert await talk.outcome() == whole(client, model)
    assert talk.heard == model.text
