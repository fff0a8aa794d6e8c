"""A client that makes up queries of a shared route: each is a stream of its own, whose upstream connection may outlive the request."""

import asyncio
import contextlib
import hashlib
import json
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.policy.routes import Route
from producer.settings import Settings
from service.last_event_id import PARAMETERS
from tests.kit.downstream import Answer, Downstream
from tests.kit.gateway import serving
from tests.kit.producer import serve
from tests.kit.routed_gateway import Gateway, running, shared
from tests.kit.stack import REPOSITORY
from tests.kit.upstream import EVENT_STREAM_HEAD, Asked, Script, ScriptedUpstream, Silence, chunk

EVENT, EARLIER = b"id: 1\ndata: 1\n\n", b"id: 0\ndata: 0\n\n"
FOREVER_SECONDS = 3600
STRANGER = "127.0.0.2"
ANY = {"upstream": "http://127.0.0.1:1"}
ACCEPT = ("Accept", "text/event-stream")


def silent(asked: Asked) -> Script:
    return [EVENT_STREAM_HEAD, Silence()]


def eventful(asked: Asked) -> Script:
    """Send a catch-up its own event, so that it does not meet the live stream and goes on."""
    return [EVENT_STREAM_HEAD, chunk(EARLIER if "since" in asked.target else EVENT), Silence()]


@contextlib.asynccontextmanager
async def asking(gateway: Gateway, target: str, source: str = "127.0.0.1") -> AsyncIterator[Answer]:
    """Open the answer to a client that disconnects at the end."""
    async with Downstream(gateway.port, source=source) as client:
        await client.ask(target, headers=[ACCEPT])
        yield await client.answer()


async def is_followed(answer: Answer) -> bool:
    """Whether an answer brings the event, and does not just say when to come back."""
    body = await answer.receive_until(lambda body: body.endswith(b"\n\n") or body.startswith(b"retry:"))
    return b"data: " in body


def open_upstream(upstream: ScriptedUpstream) -> int:
    return sum(not asked.left.is_set() for asked in upstream.requests)


async def test_stream_without_an_event_leaves_no_upstream_connection(tmp_path: Path) -> None:
    async with (
        ScriptedUpstream(silent) as upstream,
        running([shared("/", upstream.url, linger_seconds=FOREVER_SECONDS)], tmp_path) as gateway,
    ):
        for number in range(100):
            async with asking(gateway, f"/topic?made-up={number}"):
                pass
        async with asyncio.timeout(30):
            await asyncio.gather(*(asked.left.wait() for asked in upstream.requests))
        assert len(upstream.requests) == 100


async def test_lingering_streams_of_one_client_are_bounded_and_strangers_are_served(tmp_path: Path) -> None:
    most = 10
    async with (
        ScriptedUpstream(eventful) as upstream,
        running(
            [shared("/", upstream.url, linger_seconds=FOREVER_SECONDS)], tmp_path, max_streams_per_client=most, max_streams=15
        ) as gateway,
    ):
        for number in range(5 * most):
            async with asking(gateway, f"/topic?made-up={number}") as answer:
                assert await is_followed(answer), "what lingers gives way to what is asked for"
            assert await gateway.metric("gateway_shared_streams") <= most
        async with contextlib.AsyncExitStack() as stack:
            for number in range(7):  # until it has as many as the other, whose lingering streams make room for it
                answer = await stack.enter_async_context(asking(gateway, f"/news?topic={number}", STRANGER))
                assert await is_followed(answer)
            assert await gateway.metric("gateway_shared_streams") <= 15
        async with asyncio.timeout(30):
            while open_upstream(upstream) > 15:
                await asyncio.sleep(0.01)


async def test_streams_and_catch_ups_in_use_are_refused_beyond_the_limit(tmp_path: Path) -> None:
    route = {"begin_parameters": ["since"]}
    async with (
        ScriptedUpstream(eventful) as upstream,
        running([shared("/", upstream.url, **route)], tmp_path, max_streams_per_client=6) as gateway,
        contextlib.AsyncExitStack() as stack,
    ):

        async def served(target: str, source: str = "127.0.0.1") -> bool:
            return await is_followed(await stack.enter_async_context(asking(gateway, target, source)))

        async def refused(target: str) -> bool:
            """Asked in vain, and gone."""
            async with asking(gateway, target) as answer:
                return not await is_followed(answer)

        assert [await served(f"/topic?q={number}&since=1") for number in range(3)] == [True] * 3  # a live stream and a catch-up each
        assert await refused("/topic?q=3")
        assert await refused("/topic?q=0&since=2")
        assert await served("/topic?q=0&since=1"), "what is followed already costs nothing"
        assert await served("/topic?q=3", STRANGER)
        assert await gateway.metric("gateway_rejected_total", reason="client-streams") == 2
        async with Downstream(gateway.port) as client:
            await client.ask("/topic?q=4")
            answer = await client.answer()
            assert (answer.head.status, answer.head.value("Retry-After")) == (429, "1")
            assert b"holds 6 streams that outlive their requests and requests 1 more, the limit is 6" in await answer.to_end()


async def test_stream_that_clients_share_counts_for_none_of_them(tmp_path: Path) -> None:
    async with (
        ScriptedUpstream(eventful) as upstream,
        running([shared("/", upstream.url, initial="history")], tmp_path, max_streams_per_client=4) as gateway,
        contextlib.AsyncExitStack() as stack,
    ):
        for source in ("127.0.0.1", STRANGER):
            for number in range(2):
                assert await is_followed(await stack.enter_async_context(asking(gateway, f"/shared/{number}", source)))
        for number in range(8):
            async with asking(gateway, f"/own/{number}") as answer:
                assert await is_followed(answer)
        shared_streams = [asked for asked in upstream.requests if asked.target.startswith("/shared")]
        assert len(shared_streams) == 2
        assert not any(asked.left.is_set() for asked in shared_streams)


@pytest.mark.parametrize("workers", [2])
async def test_streams_count_over_all_workers(tmp_path: Path, workers: int) -> None:
    most = 6
    route = shared("/", "", begin_parameters=["since"])
    async with (
        ScriptedUpstream(eventful) as upstream,
        running([route | {"upstream": upstream.url}], tmp_path, max_streams_per_client=most, workers=workers) as gateway,
        contextlib.AsyncExitStack() as stack,
    ):
        targets = [f"/topic?q={number}&since=1" for number in range(most)]
        answers = [await stack.enter_async_context(asking(gateway, target)) for target in targets]
        followed = [await is_followed(answer) for answer in answers]
        assert sum(followed) == most / 2, followed
        assert open_upstream(upstream) <= most


ALLOWED = [
    "",
    "?topic=a&topic=b",
    "?%74opic=a&&",
    "?from=1",
    "?limit=1",
    "?key=k",
    "?last_event_id=1",
    "?lastEventId=1",
    "?Last-Event-ID=1",
]
REFUSED = {"?x": "x", "?topic=a&made-up=1": "made-up", "?Topic=a": "Topic", "?=1": "", "?a%26b=1": "a&b", "?token=1": "token"}


@pytest.mark.parametrize("mode", ["direct", "shared", "resumable"])
async def test_parameters_that_a_route_does_not_name_are_refused(tmp_path: Path, mode: str) -> None:
    """With `key` the client authenticates; `token` is a credential of mode resumable."""
    key = {"name": "shop", "sha256": hashlib.sha256(b"k").hexdigest()}
    auth = {"kind": "api-keys", "query_parameter": "key", "keys": [key]}
    shares = {"begin_parameters": ["from"], "private_parameters": ["limit"], "public": True} if mode == "shared" else {}
    keys = {"query_parameters": ["topic"] if mode == "shared" else ["topic", "from", "limit"]} | shares
    routes = [
        {"path": "/open", "mode": mode} | keys,
        {"path": "/guarded", "mode": mode, "auth": auth} | keys,
        {"path": "/any", "mode": mode},
    ]
    async with (
        ScriptedUpstream([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"]) as upstream,
        serving([each | {"upstream": upstream.url} for each in routes], tmp_path) as port,
        Downstream(port) as client,
    ):
        for query in ALLOWED:
            await client.ask(("/guarded" if query == "?key=k" else "/open") + query)
            assert await (await client.answer()).to_end() == b"ok", query
        for query, name in REFUSED.items():
            if mode == "resumable" and name == "token":
                continue
            await client.ask("/any" + query)
            assert await (await client.answer()).to_end() == b"ok"
            await client.ask("/open" + query)
            answer = await client.answer()
            detail = json.loads(await answer.to_end())["detail"]
            assert answer.head.status == 400
            assert detail.startswith(f"the query parameter {name!r} is not allowed for /open, allowed are Last-Event-ID, ")
        await client.ask("/open?key=k")
        assert (await client.answer()).head.status == (200 if mode == "resumable" else 400)


async def test_shipped_routes_name_the_parameters_of_the_producer() -> None:
    """Or a client of the stack could not send one that it takes, or could make up others."""
    table = tomllib.loads((REPOSITORY / "gateway/routes.toml").read_text())
    async with serve(Settings()) as producer:
        paths = (await producer.http.get("/openapi.json")).json()["paths"]
    for path in ("/topics/{topic}/events", "/events"):
        taken = {each["name"] for each in paths[path]["get"]["parameters"] if each["in"] == "query"}
        route = Route.model_validate(next(each for each in table["routes"] if path.startswith(each["path"]) and each["path"] != "/") | ANY)
        assert route.known_parameters == taken | set(PARAMETERS)
