"""A subscriber of a direct or resumable route comes while the upstream restarts: it waits, because an EventSource gives up at an error."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.kit.downstream import Answer, Downstream, End, Fields
from tests.kit.reloading import Reloading, reloading, route
from tests.kit.stack import free_ports, refusing
from tests.kit.upstream import EVENT_STREAM_HEAD, LAST_CHUNK, ScriptedUpstream, Silence, chunk
from tests.kit.waiting import GUARD_SECONDS

SUBSCRIBER = [("Accept", "text/event-stream")]
CREDENTIALS = [*SUBSCRIBER, ("Authorization", "Bearer x")]
"""Which are not shared."""
STREAM = [EVENT_STREAM_HEAD, chunk(b"data: x\n\n"), LAST_CHUNK]


@contextlib.asynccontextmanager
async def asking(gateway: Reloading, fields: Fields = SUBSCRIBER, method: str = "GET") -> AsyncIterator[Downstream]:
    async with Downstream(gateway.port) as downstream:
        await downstream.ask("/", method, fields)
        yield downstream


async def until_waiting(gateway: Reloading, count: int) -> None:
    """Wait until this number of requests are open."""
    async with asyncio.timeout(GUARD_SECONDS):
        while f"gateway_open_requests {count}.0" not in gateway.gateway.metrics_text():
            await asyncio.sleep(0.01)


async def refused(answer: Answer, status: int) -> str:
    document = json.loads(await answer.to_end())
    assert answer.head.status == document["status"] == status
    return str(document["detail"])


@pytest.mark.parametrize(
    "keys",
    [
        {"mode": "direct"},
        {"mode": "resumable"},
        {"mode": "resumable", "methods": ["GET"]},
        {"mode": "shared"},
        {"mode": "direct", "first_byte_timeout_seconds": 0.1},
    ],
    ids=["direct", "resumable", "resumable GET", "not shared", "with a short time limit for the first byte"],
)
async def test_subscriber_waits_for_an_upstream_that_restarts(tmp_path: Path, keys: dict[str, object]) -> None:
    [port] = free_ports(1)
    keys = {"connect_timeout_seconds": 0.2, "wait_seconds": GUARD_SECONDS} | keys
    async with reloading(tmp_path, route("/", f"http://127.0.0.1:{port}", **keys)) as gateway, asking(gateway, CREDENTIALS) as downstream:
        await until_waiting(gateway, 1)
        await asyncio.sleep(0.5)  # longer than any other time limit
        assert not downstream.buffer
        async with ScriptedUpstream(STREAM, port=port):
            answer = await downstream.answer()
            assert answer.head.status == 200
            await answer.to_end()


@pytest.mark.parametrize(
    ("method", "fields"),
    [("GET", [("Accept", "application/json")]), ("GET", [("Accept", "*/*")]), ("GET", []), ("POST", SUBSCRIBER)],
    ids=["JSON", "anything", "no Accept", "POST"],
)
async def test_other_requests_wait_for_no_longer_than_connecting_may_take(tmp_path: Path, method: str, fields: Fields) -> None:
    with refusing() as nowhere:
        table = route("/", nowhere, connect_timeout_seconds=0.2, wait_seconds=10 * GUARD_SECONDS)
        async with reloading(tmp_path, table) as gateway, asking(gateway, fields, method) as downstream:
            assert "cannot connect" in await refused(await downstream.answer(), 502)


@pytest.mark.parametrize("seconds", [0.0, 0.3])
async def test_subscriber_that_has_waited_long_enough_gets_the_error(tmp_path: Path, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    with refusing() as nowhere:
        table = route("/", nowhere, connect_timeout_seconds=0.1, wait_seconds=seconds)
        async with reloading(tmp_path, table) as gateway, asking(gateway) as downstream:
            assert "cannot connect" in await refused(await downstream.answer(), 502)
            assert loop.time() - begun >= seconds


async def test_time_limit_of_the_first_byte_holds_for_a_subscriber_from_its_connection_on(tmp_path: Path) -> None:
    async with ScriptedUpstream([Silence()]) as upstream:
        table = route("/", upstream.url, first_byte_timeout_seconds=0.2, wait_seconds=10 * GUARD_SECONDS)
        async with reloading(tmp_path, table) as gateway, asking(gateway) as downstream:
            assert "head of its answer" in await refused(await downstream.answer(), 504)


async def test_wait_ends_when_the_client_leaves(tmp_path: Path) -> None:
    with refusing() as nowhere:
        async with reloading(tmp_path, route("/", nowhere, wait_seconds=10 * GUARD_SECONDS)) as gateway:
            async with asking(gateway):
                await until_waiting(gateway, 1)
            await until_waiting(gateway, 0)


async def test_waiting_subscribers_count_as_open_and_end_when_the_gateway_drains(tmp_path: Path) -> None:
    with refusing() as nowhere:
        table = route("/", nowhere, wait_seconds=10 * GUARD_SECONDS, connect_timeout_seconds=GUARD_SECONDS)
        async with contextlib.AsyncExitStack() as stack:
            async with reloading(tmp_path, table, max_streams=2, drain_seconds=GUARD_SECONDS) as gateway:
                subscriber = await stack.enter_async_context(asking(gateway))
                program = await stack.enter_async_context(asking(gateway, [("Accept", "application/json")], "PUT"))
                await until_waiting(gateway, 2)
                async with asking(gateway) as one_too_many:
                    assert "the limit is 2" in await refused(await one_too_many.answer(), 503)
                loop = asyncio.get_running_loop()
                begun = loop.time()
            assert loop.time() - begun < GUARD_SECONDS / 2, "the grace time is twice that"
            answer = await subscriber.answer()
            body = await answer.to_end()
            assert (answer.head.status, answer.end) == (200, End.COMPLETE), "an EventSource would give up for good on any other answer"
            assert body.startswith(b"retry: ")
            assert "shutting down" in await refused(await program.answer("PUT"), 503)
