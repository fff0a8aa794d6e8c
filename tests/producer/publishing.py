"""Publishing in tests: a request, the stored events, and the refusal."""

import json
from typing import Any

import httpx

from eventstream import Event
from producer.settings import Settings
from tests.kit.producer import Producer, events_of

NDJSON = {"Content-Type": "application/x-ndjson"}
TEXT = {"Content-Type": "text/plain"}
SMALL = Settings(max_event_bytes=1000, max_batch_events=3, max_batch_bytes=8000)
RETRY = b"retry: 3000\n"


def topic_of(test: str) -> str:
    """Return a topic that no other test of the same producer uses."""
    return "".join(character if character.isalnum() else "-" for character in test)[:200] + "~"


async def stored(producer: Producer, topic: str) -> list[Event]:
    """Return all events of a topic."""
    answer = await producer.http.get(f"/topics/{topic}/events", params={"from": "start", "follow": "false"})
    assert answer.content.startswith(RETRY)
    return events_of(answer.content.removeprefix(RETRY)) if answer.content != RETRY else []


async def post(producer: Producer, topic: str, body: object, **headers: str) -> httpx.Response:
    """Publish JSON."""
    content = json.dumps(body)  # in ASCII, with a lone surrogate as an escape
    return await producer.http.post(f"/topics/{topic}/events", content=content, headers={"Content-Type": "application/json"} | headers)


def problem_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    """Return the problem document of an answer that must have this status."""
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json"), answer.text
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    return problem
