"""What a stranger can do with the names of others' answers, and what names can do to the gateway."""

import asyncio
import itertools
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable
from urllib.parse import quote

import pytest
import pytest_asyncio

from tests.kit.downstream import Downstream
from tests.kit.routed_gateway import Gateway, Route, running
from tests.kit.upstream import EVENT_STREAM_HEAD, LAST_CHUNK, Asked, Script, ScriptedUpstream, Silence, chunk

pytestmark = pytest.mark.asyncio(loop_scope="session")

ALICE = ("Authorization", "Bearer alice")
MALLORY = ("Authorization", "Bearer mallory")
CHAT = {"name": "body:/id", "path": "{name}/stream", "stop": "POST {name}/stop"}
KINDS = ("running", "complete", "stopped")
MEBIBYTES = 2**20
LARGE_BYTES = MEBIBYTES
"""More of a body is not searched by the upstream here."""
VARYING = ("date", "x-request-id")


def play(asked: Asked) -> Script:
    """Answer a request with its own name, for ever if that begins with "running" or "stopped"; tell which other requests have come."""
    if asked.method != "POST" or asked.target.endswith(("/cancel", "/stop")):
        return [b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nnone"]
    try:
        name = json.loads(asked.body[:LARGE_BYTES])["id"]
    except (ValueError, RecursionError, KeyError, TypeError):
        name = None
    response = json.dumps({"type": "start", "messageId": "m", "response": {"id": name}})
    first = [EVENT_STREAM_HEAD, chunk(f"data: {response}\n\n".encode())]
    return [*first, Silence()] if str(name).startswith(("running", "stopped")) else [*first, LAST_CHUNK]


def route(path: str, upstream: str, resume: dict[str, object] | None = None, **keys: object) -> Route:
    return {"path": path, "upstream": upstream, "mode": "resumable", "heartbeat_seconds": 0} | ({"resume": resume} if resume else {}) | keys


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream(play) as upstream:
        yield upstream


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway(upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    routes = [
        route("/chat", upstream.url, CHAT),
        route("/strict", upstream.url, CHAT | {"when_missing": "not-found"}),
        route("/ai", upstream.url, {"preset": "ai-sdk"}),
        route("/v1", upstream.url, {"preset": "openai-responses"}),
        route("/brief", upstream.url, CHAT, retain_seconds=0.1),
        route("/plain", upstream.url),
    ]
    async with running(routes, tmp_path_factory.mktemp("names"), plain=True, max_streams_per_client=10_000) as gateway:
        yield gateway


async def ask(
    gateway: Gateway, target: str, method: str = "GET", body: bytes = b"", *, of: tuple[str, str] = ALICE
) -> tuple[int, list[tuple[str, str]], bytes]:
    """Return the status, the fields that tell something, and the whole body of an answer."""
    async with Downstream(gateway.port) as client:
        await client.ask(target, method, [of, ("Content-Type", "application/json")] if body else [of], body)
        answer = await client.answer(method)
        got = (await answer.to_end()).replace((answer.head.value("X-Request-Id") or "-").encode(), b"-")
        return answer.head.status, [field for field in answer.head.fields if field[0].lower() not in VARYING], got


async def open_answers(gateway: Gateway, base: str) -> None:
    """Let Alice open an answer of each kind at `base`, named for it."""
    for kind in KINDS:
        async with Downstream(gateway.port) as client:
            await client.ask(base, "POST", [ALICE, ("Content-Type", "application/json")], json.dumps({"id": kind}).encode())
            answer = await client.answer("POST")
            await answer.receive(1)
            if kind == "complete":
                await answer.to_end()
    await ask(gateway, f"{base}/stopped/{'cancel' if base.startswith('/v1') else 'stop'}", "POST")


@pytest.mark.parametrize(
    ("base", "read", "stop", "status"),
    [
        ("/chat", "/{}/stream", "/{}/stop", 204),
        ("/strict", "/{}/stream", "/{}/stop", 404),
        ("/ai", "/{}/stream", "/{}/stop", 204),
        ("/v1/responses", "/{}?stream=true", "/{}/cancel", 404),
    ],
)
async def test_stranger_cannot_tell_the_name_of_another_from_none(gateway: Gateway, base: str, read: str, stop: str, status: int) -> None:
    await open_answers(gateway, base)
    for method, path in (("GET", read), ("POST", stop)):
        answers = [await ask(gateway, base + path.format(name), method, of=MALLORY) for name in (*KINDS, "none")]
        assert answers[-1][0] == status
        assert [answer for answer in answers if answer != answers[-1]] == [], method
    async with Downstream(gateway.port) as owner:
        await owner.ask(base + read.format("running"), headers=[ALICE])
        assert b'"running"' in await (await owner.answer()).receive_until(lambda got: got.endswith(b"\n\n"))


@pytest.mark.parametrize("name", KINDS)
async def test_stranger_cannot_tell_the_name_of_another_by_the_time(gateway: Gateway, name: str) -> None:
    await open_answers(gateway, "/chat")
    seconds: dict[str, list[float]] = {name: [], "none": []}
    async with Downstream(gateway.port) as client:
        for number in range(600):
            tried = (name, "none")[number % 2]
            began = time.perf_counter()
            await client.ask(f"/chat/{tried}/stream", headers=[MALLORY])
            await (await client.answer()).to_end()
            seconds[tried].append(time.perf_counter() - began)
    existing, none = (statistics.median(each) for each in seconds.values())
    assert 0.6 < existing / none < 1.6, f"{existing * 1e6:.0f} µs and {none * 1e6:.0f} µs"


ODD_NAMES = ["a/b", "...", "%", "%2F", "a%2Fb", "100%25", "a b?c#d;e", "ü🌊", "\x00", "\r\nX: y", "x" * 1024]


@pytest.mark.parametrize("name", ODD_NAMES, ids=range(len(ODD_NAMES)))
async def test_odd_name_is_found_by_its_owner_only(gateway: Gateway, name: str) -> None:
    got = (await ask(gateway, "/chat", "POST", json.dumps({"id": name}).encode()))[2]
    path = quote(name, safe="").replace(".", "%2E").replace("x", "%78")
    assert (await ask(gateway, f"/chat/{path}/stream"))[::2] == (200, got)
    assert (await ask(gateway, f"/chat/{path}/stream", of=MALLORY))[::2] == (204, b"")
    assert (await ask(gateway, f"/chat/{quote(path, safe='')}/stream"))[0] == 204, "a name is decoded once"


@pytest.mark.parametrize("name", ["..", ".", "../ai"])
async def test_name_that_reads_as_another_path_cannot_be_asked_for(gateway: Gateway, name: str) -> None:
    status, fields, got = await ask(gateway, "/chat", "POST", json.dumps({"id": name}).encode())
    assert status == 200
    assert (await ask(gateway, f"/chat/{quote(name, safe='').replace('.', '%2E')}/stream"))[0] in (200, 400)
    assert (await ask(gateway, dict(fields)["Location"]))[2] == got


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"id": "x" * 10_240}).encode(),
        b"[" * 100_000 + b"]" * 100_000,
        b'{"id": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"id": {"id": "inner"}}',
        b'{"id": ["inner"]}',
        b'{"id": 1e999}',
        b'{"id": ' + b"9" * 8000 + b"}",
        b'{"id": ' + b"9" * 100_000 + b"}",
        b'{"id": "\\ud800"}',
        b'{"id": true}',
    ],
    ids=range(11),
)
async def test_body_without_a_sensible_name_is_answered_all_the_same(gateway: Gateway, body: bytes) -> None:
    status, fields, got = await ask(gateway, "/chat", "POST", body)
    assert (status, got.count(b"data:")) == (200, 1)
    assert (await ask(gateway, dict(fields)["Location"]))[2] == got


async def test_path_of_ten_kilobytes_is_answered(gateway: Gateway) -> None:
    assert (await ask(gateway, f"/chat/{'x' * 7_000}/stream"))[0] == 204
    assert (await ask(gateway, f"/chat/{'x' * 10_240}/stream"))[0] in (204, 414, 431, 400)
    assert (await ask(gateway, f"/chat/{'%2F' * 2_000}/stream"))[0] == 204


async def test_last_of_equal_keys_names_an_answer(gateway: Gateway) -> None:
    await ask(gateway, "/chat", "POST", b'{"id": "first", "id": "last"}')
    assert [(await ask(gateway, f"/chat/{name}/stream"))[0] for name in ("first", "last")] == [204, 200]


async def test_names_leave_memory_with_their_answers(gateway: Gateway) -> None:
    async def open_thousand(generation: int) -> str:
        for start in range(0, 1000, 50):
            names = [f"{generation}-{number}".ljust(1024, "n") for number in range(start, start + 50)]
            answers = [ask(gateway, "/brief", "POST", json.dumps({"id": name}).encode()) for name in names]
            assert {status for status, *_ in await asyncio.gather(*answers)} == {200}
        return names[-1]

    used = []
    for generation in range(4):
        last = await open_thousand(generation)
        async with asyncio.timeout(60):
            while (await ask(gateway, f"/brief/{last}/stream"))[0] != 204:
                await asyncio.sleep(0.05)
        used.append(gateway.memory())
    assert used[-1] - used[1] < 3 * MEBIBYTES, used


PINGER = """
import http.client, sys, threading, time

connection, leave = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1])), threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), leave.set()), daemon=True).start()
while not leave.is_set():
    began = time.perf_counter()
    connection.request("GET", "/chat/none/stream", headers={"Authorization": "Bearer alice"})
    connection.getresponse().read()
    print(time.perf_counter() - began, flush=True)
    time.sleep(0.001)
"""
"""Another client, in a process of its own: what holds up the test must not count."""


async def seconds_beside(gateway: Gateway, attack: Awaitable[object]) -> list[float]:
    """Return how long each request of another client took meanwhile."""
    pipe = asyncio.subprocess.PIPE
    pinger = await asyncio.create_subprocess_exec(sys.executable, "-c", PINGER, str(gateway.port), stdin=pipe, stdout=pipe)
    assert pinger.stdout
    await pinger.stdout.readline()  # it has started
    await attack
    output, _ = await pinger.communicate(b"")
    return [float(line) for line in output.split()]


@pytest.mark.parametrize("start", [b'{"m":[', b"["], ids=["in an object", "alone"])
async def test_large_arrays_hold_no_client_up_longer_than_the_same_bytes_without_a_name(gateway: Gateway, start: bytes) -> None:
    end = b'[]],"id":"large"}' if start != b"[" else b"[]]"
    body = start + b"[]," * ((16 * MEBIBYTES - len(start + end)) // 3) + end
    beside: dict[str, list[list[float]]] = {"/plain": [], "/chat": []}
    for _ in range(5):
        for target, rounds in beside.items():
            rounds.append(await seconds_beside(gateway, ask(gateway, target, "POST", body, of=MALLORY)))
    plain, named = (statistics.quantiles(itertools.chain(*rounds), n=100)[98] for rounds in beside.values())
    assert named < 3 * plain, f"p99 is {named * 1e3:.1f} ms instead of {plain * 1e3:.1f} ms"
    plain, named = (statistics.median(map(max, rounds)) for rounds in beside.values())
    assert named < 10 * plain, f"the longest request took {named * 1e3:.1f} ms instead of {plain * 1e3:.1f} ms"
