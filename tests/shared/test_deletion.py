"""A DELETE that succeeds at the upstream also deletes from the histories."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

from producer.settings import Settings
from tests.kit.downstream import Answer, Downstream
from tests.kit.gateway_process import start_gateway
from tests.kit.producer import Producer, serve
from tests.kit.stack import REPOSITORY

ACCEPT = ("Accept", "text/event-stream")
JSON = ("Content-Type", "application/json")


@contextlib.asynccontextmanager
async def subscribed(port: int, path: str, after: str = "") -> AsyncIterator[Answer]:
    """Open a stream of a topic, from the event ID `after` if given."""
    async with Downstream(port) as downstream:
        await downstream.ask(path, headers=[ACCEPT, *([("Last-Event-ID", after)] if after else [])])
        yield await downstream.answer()


async def asked(port: int, method: str, path: str, body: object = None) -> tuple[int, bytes]:
    async with Downstream(port) as downstream:
        await downstream.ask(path, method, [JSON], json.dumps(body).encode() if body is not None else b"")
        answer = await downstream.answer(method)
        return answer.head.status, await answer.to_end()


async def publish(port: int, topic: str, data: str) -> str:
    """Publish an event, and return its ID."""
    status, answer = await asked(port, "POST", f"/topics/{topic}/events", {"data": data})
    assert status == 201, answer
    return str(json.loads(answer)["id"])


async def received(answer: Answer, data: str) -> bytes:
    """Return everything up to the event with this data."""
    body = await answer.receive_until(lambda body: f"data: {data}\n\n".encode() in body)
    assert answer.end is None, body
    return body


@contextlib.asynccontextmanager
async def stack(tmp_path: Path, workers: int = 1) -> AsyncIterator[tuple[int, Producer]]:
    """Run the producer behind a gateway with the routes of the compose file; yield the gateway's port."""
    async with serve(Settings(demo=False)) as producer:
        options = {"CONFIG": str(REPOSITORY / "gateway" / "routes.toml"), "DATA_DIR": str(tmp_path), "DRAIN_SECONDS": "1"}
        upstream = f"http://127.0.0.1:{producer.port}"
        async with start_gateway(UPSTREAM=upstream, WORKERS=str(workers), **options) as gateway:
            yield urlsplit(gateway.url).port or 0, producer
            gateway.terminate()
            assert await gateway.exit_status() == 0


PATHS = ("/topics/orders.new/events", "/topics/orders.*/events", "/events?topic=orders.new&topic=news", "/topics/news/events")


async def test_dropped_topic_is_gone_from_every_history_and_live_subscribers_continue(tmp_path: Path) -> None:
    async with stack(tmp_path) as (port, producer), contextlib.AsyncExitStack() as open_streams:
        live = [await open_streams.enter_async_context(subscribed(port, path)) for path in PATHS]
        first = await publish(port, "orders.new", "one")
        await publish(port, "orders.new", "two")
        kept = await publish(port, "news", "kept")
        for answer, data in zip(live, ("two", "two", "kept", "kept"), strict=True):
            await received(answer, data)
        assert (await asked(port, "DELETE", "/topics/orders.new"))[0] == 200
        for path in PATHS[:3]:
            async with subscribed(port, path, first) as back:
                await publish(port, "orders.new", "three")
                body = await received(back, "three")
                assert b"data: two\n" not in body, path
                assert b"event: gap\n" in body, path
        async with subscribed(port, PATHS[3], kept) as other:
            await publish(port, "news", "later")
            assert b"gap" not in await received(other, "later"), "the other topic is still there"
        for answer, data in zip(live, ("three", "three", "later", "later"), strict=True):
            assert b"gap" not in await received(answer, data), "they have missed nothing"
        await producer.meter_reaches("producer_streams_open", 4)  # their streams are the same, and the catch-ups have ended


async def test_delete_of_something_else_leaves_the_history(tmp_path: Path) -> None:
    async with stack(tmp_path) as (port, producer), subscribed(port, PATHS[0]) as live:
        first = await publish(port, "orders.new", "one")
        await publish(port, "orders.new", "two")
        await received(live, "two")
        for method, path in (("DELETE", "/topics/other"), ("DELETE", "/topics/orders"), ("DELETE", PATHS[0]), ("PUT", PATHS[0])):
            status, _ = await asked(port, method, path)
            assert status >= 400
        await publish(port, "other", "one")
        assert (await asked(port, "DELETE", "/topics/other"))[0] == 200
        async with subscribed(port, PATHS[0], first) as back:
            await received(back, "two")
        assert await producer.meter("producer_streams_open") == 1, "it came from the history"


async def test_workers_notify_each_other_of_a_deletion(tmp_path: Path) -> None:
    async with stack(tmp_path, workers=2) as (port, producer), contextlib.AsyncExitStack() as open_streams:
        live = [await open_streams.enter_async_context(subscribed(port, PATHS[0])) for _ in range(18)]
        assert await producer.meter("producer_streams_open") == 2, "each worker has its own"
        first = await publish(port, "orders.new", "one")
        await publish(port, "orders.new", "two")
        for answer in live:
            await received(answer, "two")
        assert (await asked(port, "DELETE", "/topics/orders.new"))[0] == 200
        async with asyncio.timeout(60):
            for _ in range(12):  # by then each worker got a request, and the other has been notified
                while True:
                    async with subscribed(port, PATHS[0], first) as back:
                        await publish(port, "orders.new", "three")
                        if b"data: two\n" not in await received(back, "three"):
                            break
