"""Limits for each client, as clients meet them: in one process, and with workers that share what they count."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.kit.downstream import Answer, Downstream
from tests.kit.gateway import serving
from tests.kit.stage import Stage
from tests.kit.upstream import EVENT_STREAM_HEAD, LAST_CHUNK, Asked, Script, ScriptedUpstream, chunk
from tests.kit.workers import crew

PER_SECOND = 4
APP, OTHER = "https://app.example", "https://other.example"
KEYS = {"shop": "key-of-the-shop-0123456789abcdef", "office": "key-of-the-office-0123456789abcdef"}
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CORS: dict[str, Any] = {"origins": [APP, OTHER], "credentials": True}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage() -> AsyncIterator[Stage]:
    async with Stage() as stage:
        yield stage


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def port(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[int]:
    shop, office = ({"name": name, "sha256": hashlib.sha256(key.encode()).hexdigest()} for name, key in KEYS.items())
    routes: list[dict[str, Any]] = [
        {"path": "/", "upstream": stage.url, "cors": CORS},
        {"path": "/shared", "upstream": stage.url, "mode": "shared"},
        {"path": "/guarded", "upstream": stage.url, "auth": {"kind": "api-keys", "keys": [shop]}},
        {"path": "/kept", "upstream": stage.url, "mode": "resumable", "auth": {"kind": "api-keys", "keys": [shop, office]}},
    ]
    async with serving(routes, tmp_path_factory.mktemp("limits"), max_requests_per_second_per_client=PER_SECOND) as port:
        yield port


async def ask(port: int, source: str, target: str = "/", *headers: tuple[str, str], method: str = "GET") -> tuple[Answer, bytes]:
    """Return an answer and its body, over a separate connection."""
    async with Downstream(port, source=source) as downstream:
        await downstream.ask(target, method, headers)
        answer = await downstream.answer(method)
        return answer, await answer.to_end()


@pytest.mark.asyncio(loop_scope="module")
async def test_one_request_too_many_is_a_429_that_says_when_to_come_back(port: int, stage: Stage) -> None:
    scene = stage.scene(OK).headers[0]
    origin = ("Origin", APP)
    served = 0
    while (answered := await ask(port, "127.0.0.2", "/", scene, origin))[0].head.status == 200 and served < 100:
        served += 1  # a slow machine needs some more to be too fast
    refused, body = answered
    assert served >= PER_SECOND
    assert refused.head.status == 429
    assert refused.head.value("Retry-After") == "1"
    assert refused.head.value("Access-Control-Allow-Origin") == APP
    assert json.loads(body)["detail"] == f"127.0.0.2 may make {PER_SECOND} requests per second; retry in 1 s"
    assert (await ask(port, "127.0.0.3", "/", scene))[0].head.status == 200
    preflight, _ = await ask(port, "127.0.0.2", "/", origin, ("Access-Control-Request-Method", "GET"), method="OPTIONS")
    assert preflight.head.status == 204
    await asyncio.sleep(1)  # what Retry-After says
    assert (await ask(port, "127.0.0.2", "/", scene))[0].head.status == 200


@pytest.mark.asyncio(loop_scope="module")
async def test_event_source_that_asks_too_often_is_told_when_to_come_back(port: int) -> None:
    """It would give up for good on a 429."""
    accept = ("Accept", "text/event-stream")
    for _ in range(100):
        answer, body = await ask(port, "127.0.0.4", "/shared", accept)
        if answer.head.status == 200:  # upstream has nothing there
            break
    assert answer.head.status == 200
    assert body.startswith(b"retry: ")


@pytest.mark.asyncio(loop_scope="module")
async def test_guesses_of_keys_count_toward_the_limit_of_the_address(port: int) -> None:
    guess = ("Authorization", "Bearer not-the-key-0123456789abcdef")
    tried = 0
    while (answered := await ask(port, "127.0.0.5", "/guarded", guess))[0].head.status == 401 and tried < 100:
        tried += 1
    assert tried >= PER_SECOND
    assert answered[0].head.status == 429


@pytest.mark.asyncio(loop_scope="module")
async def test_holder_of_a_key_is_one_client_wherever_it_asks(port: int, stage: Stage) -> None:
    fields = [("Authorization", f"Bearer {KEYS['shop']}"), *stage.scene(OK).headers]
    served = 0
    while (answered := await ask(port, f"127.0.2.{served + 1}", "/guarded", *fields))[0].head.status == 200 and served < 100:
        served += 1
    assert served >= PER_SECOND
    assert answered[0].head.status == 429
    assert json.loads(answered[1])["detail"].startswith("subject 'shop' may make 4 requests per second")


@pytest.mark.asyncio(loop_scope="module")
async def test_client_that_resumes_a_kept_stream_counts_by_its_key_and_not_by_its_address(port: int) -> None:
    """Of which route a stream is, is known later: it may have to be looked for, and by another worker."""
    path, source = f"/streams/{'0' * 32}", "127.0.3.1"
    key, guess = ("Authorization", f"Bearer {KEYS['office']}"), ("Authorization", "Bearer not-the-key-0123456789abcdef")
    found = 0
    while (answered := await ask(port, f"127.0.3.{found + 2}", path, key))[0].head.status == 404 and found < 100:
        found += 1
    assert found >= PER_SECOND
    assert answered[0].head.status == 429
    assert json.loads(answered[1])["detail"].startswith("subject 'office' may make 4 requests per second")
    assert (await ask(port, source, path))[0].head.status == 404
    while (answered := await ask(port, source, path, guess))[0].head.status == 404 and found < 200:
        found += 1
    assert json.loads(answered[1])["detail"].startswith(f"{source} may make 4 requests per second"), "guesses of credentials count too"


def script(asked: Asked) -> Script:
    if asked.target.startswith("/kept"):
        return [EVENT_STREAM_HEAD, chunk(b"data: x\n\n"), LAST_CHUNK]
    return [OK]


CONFIG = """
[[routes]]
path = "/"
[[routes]]
path = "/kept"
mode = "resumable"
[routes.cors]
origins = ["https://app.example", "https://other.example"]
credentials = true
"""


async def test_workers_count_together_and_answer_pages_wherever_a_stream_is(tmp_path: Path) -> None:
    (tmp_path / "routes.toml").write_text(CONFIG)
    settings = {"CONFIG": str(tmp_path / "routes.toml"), "DATA_DIR": str(tmp_path / "data"), "TRUSTED_PROXIES": "127.0.0.1"}
    settings["MAX_REQUESTS_PER_SECOND_PER_CLIENT"] = "5"
    async with ScriptedUpstream(script) as upstream, crew(upstream, **settings) as workers:

        async def ask_as(client: str, target: str, *headers: tuple[str, str], method: str = "GET") -> Answer:
            answer, _ = await ask(workers.port, "127.0.0.1", target, ("X-Forwarded-For", client), *headers, method=method)
            return answer

        began = asyncio.get_running_loop().time()
        served = [(await ask_as("198.51.100.7", "/")).head.status for _ in range(30)].count(200)
        seconds = asyncio.get_running_loop().time() - began
        assert 5 <= served <= 5 + 5 * seconds + 1
        streams = set()
        for number in range(12):
            opened = await ask_as(f"198.51.101.{number}", "/kept", ("Origin", APP), method="POST")
            streams.add(opened.head.value("Location") or "")
        assert {stream.removeprefix("/streams/")[:3] for stream in streams} == {"000", "001"}  # of both workers
        for number, stream in enumerate(sorted(streams)):
            for origin in (APP, OTHER):
                answer = await ask_as(f"198.51.102.{number}", stream, ("Origin", origin))  # at either worker
                assert answer.head.values("Access-Control-Allow-Origin") == [origin]
                assert answer.head.values("Access-Control-Allow-Credentials") == ["true"]
                assert answer.head.values("Vary") == ["Origin"]
            asking = [("Origin", OTHER), ("Access-Control-Request-Method", "DELETE")]
            preflight = await ask_as(f"198.51.103.{number}", stream, *asking, method="OPTIONS")
            assert (preflight.head.status, preflight.head.value("Access-Control-Allow-Origin")) == (204, OTHER)
