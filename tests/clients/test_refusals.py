"""Test how the SDKs of OpenAI and Anthropic show the gateway's own errors, and how soon they retry."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from tests.kit.downstream import Downstream
from tests.kit.gateway import serving
from tests.kit.stack import refusing
from tests.kit.upstream import ScriptedUpstream, Silence
from tests.kit.waiting import GUARD_SECONDS

PROMPT: Any = [{"role": "user", "content": "Was macht der Strom?"}]
CHAT = (
    b'{"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": '
    b'[{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Er fliesst."}}]}'
)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(CHAT), CHAT)
AUTH = {"kind": "api-keys", "keys": [{"name": "shop", "sha256": "0" * 64, "grants": {"read": []}}]}


@contextlib.asynccontextmanager
async def gateway(tmp_path: Path, script: list[Any], **settings: object) -> AsyncIterator[tuple[str, ScriptedUpstream]]:
    async with ScriptedUpstream(script) as upstream:
        with refusing() as nowhere:
            routes = [
                {"path": "/open", "upstream": upstream.url, "first_byte_timeout_seconds": 0.2},
                {"path": "/patient", "upstream": upstream.url},
                {"path": "/closed", "upstream": upstream.url, "auth": AUTH},
                {"path": "/get", "upstream": upstream.url, "methods": ["GET"]},
                {"path": "/down", "upstream": nowhere, "connect_timeout_seconds": 0.1},
            ]
            async with serving(routes, tmp_path, **settings) as port, asyncio.timeout(4 * GUARD_SECONDS):
                yield f"http://127.0.0.1:{port}", upstream


def open_ai(url: str, retries: int = 0) -> AsyncOpenAI:
    http = openai.DefaultAsyncHttpxClient(trust_env=False)
    return AsyncOpenAI(base_url=url + "/v1", api_key="sk-x", max_retries=retries, http_client=http)


def claude(url: str, retries: int = 0) -> AsyncAnthropic:
    http = anthropic.DefaultAsyncHttpxClient(trust_env=False)
    return AsyncAnthropic(base_url=url, api_key="sk-x", max_retries=retries, http_client=http)


async def ask_openai(url: str) -> openai.APIStatusError:
    async with open_ai(url) as client:
        with pytest.raises(openai.APIStatusError) as raised:
            await client.chat.completions.create(model="m", messages=PROMPT)
        return raised.value


async def ask_anthropic(url: str) -> anthropic.APIStatusError:
    async with claude(url) as client:
        with pytest.raises(anthropic.APIStatusError) as raised:
            await client.messages.create(model="m", max_tokens=9, messages=PROMPT)
        return raised.value


REFUSALS: list[tuple[str, int, str, str, str]] = [
    ("/closed", 401, "authentication_error", "unauthenticated", "the API key is unknown"),
    ("/nowhere", 404, "not_found_error", "no_route", "no route for /nowhere/v1/"),
    ("/get", 405, "invalid_request_error", "method", "POST is not allowed for /get/v1/"),
    ("/down", 502, "api_error", "upstream_unreachable", "cannot connect"),
    ("/open", 504, "timeout_error", "upstream_timeout", "timed out waiting for the head of its answer"),
]


@pytest.mark.parametrize("ask", [ask_openai, ask_anthropic])
@pytest.mark.parametrize(("path", "status", "type", "code", "text"), REFUSALS, ids=[str(refusal[1]) for refusal in REFUSALS])
async def test_sdk_shows_the_error_and_its_reason(
    tmp_path: Path, ask: Callable[[str], Any], path: str, status: int, type: str, code: str, text: str
) -> None:
    async with gateway(tmp_path, [Silence()]) as (url, _):
        assert_told(await ask(url + path), status, type, code, text)


@pytest.mark.parametrize("ask", [ask_openai, ask_anthropic])
@pytest.mark.parametrize(
    ("settings", "status", "type", "code", "text"),
    [
        ({"max_streams_per_client": 1}, 429, "rate_limit_error", "client_streams", "close one first"),
        ({"max_streams": 1}, 503, "overloaded_error", "overload", "retry later"),
        ({"max_request_body_bytes": 20}, 413, "request_too_large", "body", "the limit is 20"),
    ],
    ids=["429", "503", "413"],
)
async def test_sdk_shows_which_limit_was_exceeded(
    tmp_path: Path, ask: Callable[[str], Any], settings: dict[str, object], status: int, type: str, code: str, text: str
) -> None:
    async with gateway(tmp_path, [Silence()], **settings) as (url, upstream), Downstream(int(url.rpartition(":")[2])) as first:
        await first.ask("/patient")
        await upstream.wait_for_requests(1)
        assert_told(await ask(url + "/open"), status, type, code, text)


def assert_told(error: openai.APIStatusError | anthropic.APIStatusError, status: int, type: str, code: str, text: str) -> None:
    assert error.status_code == status
    assert text in str(error)
    told: Any = error.body
    told = told.get("error", told)  # OpenAI's SDK unwraps the member `error`
    assert text in told["message"]
    assert (told["type"], told["code"]) == (type, code)
    if isinstance(error, openai.APIError):
        assert (error.type, error.code) == (type, code)
    retry = error.response.headers.get("Retry-After")
    assert retry == ("1" if status in (429, 502, 503, 504) else None)


async def test_sdk_retries_after_the_given_delay_and_gets_its_answer(tmp_path: Path) -> None:
    async with (
        gateway(tmp_path, [ANSWER], max_requests_per_second_per_client=1) as (url, _),
        open_ai(url + "/patient", retries=5) as client,
    ):
        begun = time.monotonic()
        for _ in range(3):
            answer = await client.chat.completions.create(model="m", messages=PROMPT)
            assert answer.choices[0].message.content == "Er fliesst."
        assert time.monotonic() - begun >= 1
