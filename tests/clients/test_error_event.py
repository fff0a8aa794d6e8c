"""Test that SDKs of all languages show the reason when an event reports a lost upstream."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.clients.conftest import MODES
from tests.clients.line import Line
from tests.clients.programs import Outcome, build_go, install_npm, run
from tests.clients.provider import KEY, Model, Provider
from tests.kit.upstream import Disconnect

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(400)]

REASON = "connection closed before the end of the response"
JAVASCRIPT = (
    "openai chat",
    "openai responses",
    "anthropic messages",
    "ai chat",
    "ai responses",
    "ai messages",
    "ai user interface",
)


@pytest.fixture(scope="module")
def npm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install_npm(tmp_path_factory.mktemp("npm"))


@pytest.fixture(scope="module")
def go(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_go(tmp_path_factory.mktemp("go"))


def assert_told(client: str, outcome: Outcome, model: Model) -> None:
    """Assert that the client received the text before the loss, and shows the reason for the end."""
    print(client, outcome)  # noqa: T201  # shown if the test fails
    assert outcome.error is not None, client
    assert "Upstream lost: " in outcome.error, client
    assert REASON in outcome.error, client
    assert outcome.text == model.first_half, client
    assert outcome.finish in (None, "error"), client


async def complete(npm: Path, url: str, models: Mapping[str, Model]) -> dict[str, Outcome]:
    """Stream a completion with each JavaScript client."""
    said = await run("node", npm / "sdks.mjs", url, KEY, *(f"{client}={model.name}" for client, model in models.items()))
    outcomes = {client: Outcome(**outcome) for client, outcome in json.loads(said).items()}
    assert outcomes.keys() == models.keys()
    return outcomes


@pytest.mark.npm
@pytest.mark.parametrize("mode", MODES)
async def test_javascript_sdks_show_the_reason(mode: str, npm: Path, provider: Provider, line: Line) -> None:
    models = {client: provider.model(Disconnect()) for client in JAVASCRIPT}
    for client, outcome in (await complete(npm, f"{line.url}/{mode}/telling", models)).items():
        assert_told(client, outcome, models[client])


@pytest.mark.npm
async def test_javascript_sdks_show_no_error_for_a_complete_answer(npm: Path, provider: Provider, line: Line) -> None:
    models = {client: provider.model() for client in JAVASCRIPT}
    for client, outcome in (await complete(npm, f"{line.url}/direct/telling", models)).items():
        assert (outcome.text, outcome.error) == (models[client].text, None), client


@pytest.mark.go
async def test_go_openai_shows_the_reason(go: Path, provider: Provider, line: Line) -> None:
    model = provider.model(Disconnect())
    said = await run(go, f"{line.url}/direct/telling", model.name, KEY)
    assert_told("go-openai", Outcome(**json.loads(said)), model)
