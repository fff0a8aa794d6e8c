"""The doctor says whether and how an answer to a POST can be resumed, by the requests that client libraries send."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from gateway.doctor.anatomy import dissect
from gateway.doctor.attempts import attempt_all
from gateway.doctor.conventions import Attempt, judge_conventions
from gateway.doctor.listening import Request
from gateway.doctor.observation import Observation
from tests.doctor.consulting import Said, consult
from tests.doctor.traces import ASKED, every, head, numbered, seen
from tests.kit.dashboard import admin
from tests.kit.upstream import EVENT_STREAM_HEAD, LAST_CHUNK, Asked, Disconnect, Script, ScriptedUpstream, Silence, chunk
from tests.kit.waiting import GUARD_SECONDS

NOT_FOUND: Script = [b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", Disconnect()]
CHECK = "resuming the answer"
UI_START: dict[str, Any] = {"type": "start", "messageId": "m1"}
NUMBERED: Sequence[Mapping[str, Any]] = [
    {"type": "response.created", "sequence_number": 0, "response": {"id": "resp_1"}},
    {"type": "response.output_text.delta", "sequence_number": 1, "delta": "a"},
]


def answer(documents: Sequence[Mapping[str, Any]], *fields: bytes) -> Script:
    """Return a whole answer of events without IDs."""
    start = EVENT_STREAM_HEAD.removesuffix(b"\r\n") + b"".join(field + b"\r\n" for field in fields) + b"Connection: close\r\n\r\n"
    return [start, *(chunk(b"data: %b\n\n" % json.dumps(each).encode()) for each in documents), LAST_CHUNK, Disconnect()]


def only_posts(script: Script) -> Callable[[Asked], Script]:
    """Answer POSTs with the script, other methods with 404."""
    return lambda asked: script if asked.method == "POST" else NOT_FOUND


UI_MESSAGES = answer([UI_START, {"type": "text-delta", "delta": "a"}], b"x-vercel-ai-ui-message-stream: v1")
RESPONSES = answer(NUMBERED)
RUN = answer([{"values": 1}, {"values": 2}], b"Content-Location: /lg/threads/t1/runs/r1")
PLAIN = answer([{"n": 1}, {"n": 2}])


@asynccontextmanager
async def behind_gateway(script: Script, tmp_path: Path, path: str, **keys: Any) -> AsyncIterator[tuple[str, ScriptedUpstream]]:
    async with (
        ScriptedUpstream(only_posts(script)) as upstream,
        admin([{"path": path, "upstream": upstream.url} | keys], tmp_path) as gateway,
    ):
        yield f"http://127.0.0.1:{gateway.port}", upstream


async def ask(url: str, *arguments: str, body: object = None) -> Said:
    return await consult(url, "-d", json.dumps(body or {"id": "chat 1/2"}), "--json", "--seconds", "20", *arguments)


@pytest.mark.parametrize(
    ("script", "preset", "path", "target", "way"),
    [
        (UI_MESSAGES, "ai-sdk", "/api/chat", "/api/chat", "by name at {api}/{id}/stream (AI SDK)"),
        (RESPONSES, "openai-responses", "/v1", "/v1/responses", "at /responses/{id}?stream=true (OpenAI Responses)"),
        (RUN, "langgraph", "/lg", "/lg/threads/t1/runs/stream", "at Content-Location + /stream (LangGraph)"),
    ],
)
async def test_preset_makes_an_answer_resumable_and_without_it_the_doctor_names_it(
    script: Script, preset: str, path: str, target: str, way: str, tmp_path: Path
) -> None:
    async with behind_gateway(script, tmp_path, path, mode="resumable", resume={"preset": preset}) as (url, upstream):
        found = (await ask(url + target)).finding(CHECK)
        assert [asked.method for asked in upstream.requests] == ["POST"]
    assert (found["severity"], found["do"]) == ("ok", "")
    assert way in found["seen"]
    assert "on the path, after Last-Event-ID" in found["seen"]
    async with behind_gateway(script, tmp_path / "plain", path, mode="resumable") as (url, _):
        found = (await ask(url + target)).finding(CHECK)
    assert found["severity"] == "note"
    assert found["seen"] == f"at its Location or Stream-Id; on the path, after Last-Event-ID; not {way}: 404"
    assert found["do"] == f'set mode = "resumable" and preset = "{preset}" in its [routes.resume] on this route of the gateway'
    async with behind_gateway(script, tmp_path / "direct", path) as (url, upstream):
        said = await ask(url + target)
        assert [asked.method for asked in upstream.requests] == ["POST", "GET"]
    assert (said.status, said.finding(CHECK)["severity"]) == (0, "note")
    assert said.finding(CHECK)["seen"] == f"not at all: not {way}: 404"


async def test_answer_without_ids_and_names_cannot_be_resumed(tmp_path: Path) -> None:
    async with behind_gateway(PLAIN, tmp_path, "/chat") as (url, upstream):
        said = await ask(url + "/chat")
        assert len(upstream.requests) == 1
    assert said.finding(CHECK) == {
        "check": CHECK,
        "severity": "note",
        "seen": "not at all: it has neither an id nor a name",
        "means": "a reload or a lost connection loses the answer, or the service is asked again",
        "do": 'set mode = "resumable" on this route of the gateway',
    }


async def test_once_sends_no_further_request_and_a_get_is_no_answer_to_resume(tmp_path: Path) -> None:
    async with behind_gateway(UI_MESSAGES, tmp_path, "/api/chat", mode="resumable", resume={"preset": "ai-sdk"}) as (url, _):
        assert CHECK not in [each["check"] for each in (await ask(url + "/api/chat", "--once")).report["findings"]]
    async with ScriptedUpstream(PLAIN) as server:
        assert CHECK not in [each["check"] for each in (await consult(server.url, "--json", "--seconds", "20")).report["findings"]]


async def test_complete_answer_of_the_ai_sdk_without_a_message_id_is_explained(tmp_path: Path) -> None:
    script = answer([{"type": "start"}, {"type": "finish"}], b"x-vercel-ai-ui-message-stream: v1")
    async with behind_gateway(script, tmp_path, "/api/chat", mode="resumable", resume={"preset": "ai-sdk"}) as (url, _):
        found = (await ask(url + "/api/chat")).finding(CHECK)
    assert ": 204, as for no answer; a complete one is replayed if its start has a messageId" in found["seen"]


async def test_location_of_another_origin_gets_no_credentials_and_may_be_dead() -> None:
    async with ScriptedUpstream(PLAIN) as other:

        def located(asked: Asked) -> Script:
            return answer([{"n": 1}], b"Location: " + (other.url + "/there").encode())

        async with ScriptedUpstream(located) as server:
            found = (await ask(server.url, "-H", "Authorization: Bearer s3cr3t")).finding(CHECK)
            assert found["seen"] == "at its Location or Stream-Id"
        [asked] = other.requests
        assert (asked.method, asked.target, asked.body, asked.header("Authorization")) == ("GET", "/there", b"", None)
    async with ScriptedUpstream(answer([{"n": 1}], b"Location: " + other.url.encode())) as server:
        assert (await ask(server.url)).finding(CHECK)["seen"] == "not at all: not at its Location or Stream-Id: no answer"
    async with ScriptedUpstream(answer([{"n": 1}], b"Location: ftp://elsewhere")) as server:
        assert (await ask(server.url)).finding(CHECK)["seen"] == "not at all: not at its Location or Stream-Id: no answer"


@pytest.mark.parametrize(
    ("observation", "fault"),
    [
        (seen(every(0.01, numbered(3, first=6))), ""),
        (seen([]), "no event arrived"),
        (seen(every(0.01, numbered(10))), "other events arrived"),
        (seen(every(0.01, numbered(3, first=7))), "other events arrived"),
        (seen([], answer=head(status=405)), "405"),
        (seen([], answer=head(("Content-Type", "application/json"))), "no event stream"),
        (Observation(ASKED, ended_seconds=ASKED + 5), "no answer"),
    ],
)
def test_answer_counts_as_resumed_if_the_next_event_comes_first(observation: Observation, fault: str) -> None:
    first = dissect(seen(every(0.1, numbered(10))).body)
    found = judge_conventions(first, [Attempt("on the path", "", "", 5, observation)])
    assert found.seen == (f"not at all: not on the path: {fault}" if fault else "on the path")
    assert found.severity == ("note" if fault else "ok")


async def test_attempts_that_were_stopped_early_are_not_judged() -> None:
    silent: Script = [Silence()]
    observation = seen(every(0.01, numbered(3)), answer=head(("Location", "/there")))
    async with ScriptedUpstream(silent) as server:
        enough = asyncio.Event()
        request = Request(URL(server.url), "POST", (), b"{}")
        attempting = asyncio.create_task(attempt_all(request, observation, GUARD_SECONDS, enough))
        await server.wait_for_requests(1)
        enough.set()
        assert await attempting is None
