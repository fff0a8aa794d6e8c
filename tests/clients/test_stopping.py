"""Test that clients with endless reconnections stop once they have every event of an answer to a POST."""

import json
from pathlib import Path

import pytest

from tests.clients.line import Line
from tests.clients.programs import install_npm, run
from tests.clients.provider import KEY, Provider

LONGEST_TIMER_MS = 2**31 - 1
"""Longest delay of a JavaScript timer in milliseconds; a longer one fires at once."""


@pytest.mark.npm
@pytest.mark.timeout(400)
@pytest.mark.asyncio(loop_scope="session")
async def test_client_with_every_event_reconnects_once_and_then_waits_for_days(tmp_path: Path, provider: Provider, line: Line) -> None:
    npm, model = install_npm(tmp_path), provider.model()
    body = json.dumps({"model": model.name, "stream": True, "messages": []})
    said = await run("node", npm / "stopping.mjs", f"{line.url}/resumable/v1/chat/completions", body, KEY)
    outcomes = json.loads(said)
    assert outcomes.keys() == {"eventsource", "eventsource-client", "fetch-event-source"}
    for client, outcome in outcomes.items():
        print(client, outcome)  # noqa: T201  # shown if the test fails
        ids = outcome["ids"]
        stream = ids[0].partition("-")[0]
        assert ids == [f"{stream}-{number}" for number in range(1, len(ids) + 1)], client
        assert len(ids) > len(model.tokens), client
        assert outcome["requests"] == [None, ids[-1]], client
        assert 86_400_000 < 2 * outcome["delay"] < LONGEST_TIMER_MS, client
    assert len(model.calls) == len(outcomes)
