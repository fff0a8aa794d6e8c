"""A new subscriber waits for an upstream that is down, and gets an error only when that takes too long."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.kit.downstream import End
from tests.kit.reloading import Reloading, reloading, shared
from tests.kit.waiting import GUARD_SECONDS
from tests.shared.conftest import Stage
from tests.shared.subscribing import Subscriber
from tests.shared.upstream import Topic, Upstream

pytestmark = pytest.mark.asyncio(loop_scope="session")

WORDS = {404: b"Not Found", 502: b"Bad Gateway", 503: b"Service Unavailable", 504: b"Gateway Timeout"}


def answer(status: int, *fields: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 %d %b" % (status, WORDS[status]), *fields, b"Content-Length: 4", b"", b"busy"])


@contextlib.asynccontextmanager
async def waiting(subscriber: Subscriber, topic: Topic, attempts: int = 1) -> AsyncIterator["asyncio.Task[Subscriber]"]:
    """Yield a subscriber that is kept waiting, after `attempts` failed attempts; disconnect it at the end."""
    async with subscriber:
        joining = asyncio.create_task(subscriber.join())
        try:
            await topic.until(lambda: len(topic.requests) >= attempts)
            yield joining
        finally:
            joining.cancel()


async def test_restart_of_the_upstream_is_invisible_to_new_subscribers(stage: Stage) -> None:
    topic = stage.topic("/history")
    subscribers = [stage.subscriber(topic) for _ in range(20)]
    async with stage.upstream.away():
        joining = [asyncio.create_task(subscriber.join()) for subscriber in subscribers]
        async with asyncio.timeout(GUARD_SECONDS):
            while await stage.gateway.metric("gateway_open_requests") < len(joining):
                await asyncio.sleep(0.01)
    await asyncio.gather(*joining)
    topic.publish(2)
    for subscriber in subscribers:
        assert (await subscriber.until_number(2)).events == topic.log.blocks
        subscriber.leave()
    assert len(topic.requests) == 1, "they share the request that they waited for"


async def test_subscriber_waits_for_an_upstream_that_is_starting(stage: Stage) -> None:
    """This includes one that hangs up without an answer."""

    async def wait_and_receive(failure: bytes) -> None:
        topic = stage.topic()
        topic.answer = failure
        async with waiting(stage.subscriber(topic), topic) as joining:
            topic.answer = None
            subscriber = await joining
            blocks = topic.publish()
            assert (await subscriber.until_number(1)).events == blocks
        assert len(topic.requests) == 2

    await asyncio.gather(*map(wait_and_receive, [answer(502), answer(503), answer(503, b"Retry-After: 0"), answer(504), b""]))


async def test_waiting_subscriber_resumes_after_its_last_event_id(stage: Stage) -> None:
    topic = stage.topic()
    topic.publish(5)
    topic.answer = answer(503)
    async with waiting(stage.subscriber(topic, last_event_id="3"), topic) as joining:
        topic.answer = None
        subscriber = await joining
        assert (await subscriber.until_number(5)).numbers == [4, 5]
        assert subscriber.received.gaps == []


async def test_subscriber_that_waited_too_long_gets_the_reason_and_retry_after(stage: Stage) -> None:
    topic = stage.topic("/half-second")
    loop = asyncio.get_running_loop()
    begun = loop.time()
    async with stage.upstream.away(), stage.subscriber(topic) as subscriber:
        status, body = await subscriber.refused()
        assert loop.time() - begun > 0.2, "it was not kept waiting"
        assert status == json.loads(body)["status"] == 502
        assert "no event stream" in json.loads(body)["detail"]
        assert int(subscriber.answer.head.value("Retry-After") or 0) > 0
    async with stage.join(topic) as subscriber:  # and that causes no back-off
        blocks = topic.publish()
        assert (await subscriber.until_number(1)).events == blocks


async def test_503_is_passed_unchanged_after_waiting_in_vain(stage: Stage) -> None:
    topic = stage.topic("/half-second")
    topic.answer = answer(503, b"X-Reason: tired")
    loop = asyncio.get_running_loop()
    begun = loop.time()
    async with stage.subscriber(topic) as subscriber:
        assert await subscriber.refused() == (503, b"busy")
        assert loop.time() - begun > 0.2, "it was not kept waiting"
        assert subscriber.answer.head.value("X-Reason") == "tired"


async def test_subscriber_does_not_wait_for_a_retry_after_beyond_its_limit(stage: Stage) -> None:
    topic = stage.topic()
    topic.answer = answer(503, b"Retry-After: 60")
    async with stage.subscriber(topic) as subscriber:
        assert await subscriber.refused() == (503, b"busy")
        assert subscriber.answer.head.value("Retry-After") == "60"


async def test_final_refusal_is_passed_to_waiting_subscribers(stage: Stage) -> None:
    topic = stage.topic()
    topic.answer = answer(503)
    async with stage.subscriber(topic) as subscriber:
        refused = asyncio.create_task(subscriber.refused())
        await topic.until(lambda: len(topic.requests) >= 1)
        topic.answer = answer(404)
        assert await refused == (404, b"busy")


async def test_upstream_is_not_retried_without_a_waiting_subscriber(tmp_path: Path) -> None:
    async with Upstream() as upstream, reloading(tmp_path, shared("/", upstream.url)) as gateway:
        topic = upstream.add(Topic("/topic"))
        topic.answer = answer(503)
        async with waiting(Subscriber(gateway.port, "/topic"), topic, attempts=2):
            await until_figure(gateway, "gateway_open_requests 1.0", "gateway_shared_streams 1.0")
        await until_figure(gateway, "gateway_open_requests 0.0", "gateway_shared_streams 0.0")
        asked = len(topic.requests)
        topic.answer = None
        async with Subscriber(gateway.port, "/topic") as subscriber:
            await subscriber.join()
            assert len(topic.requests) == asked + 1


async def test_subscriber_waits_with_an_open_response_when_the_head_is_known(stage: Stage) -> None:
    """Its head is already known, so new subscribers need not wait for it."""
    topic = stage.topic("/from")
    async with stage.join(topic) as first:
        topic.publish(2)
        await first.until_number(2)
        topic.answer = answer(503)
        topic.kill()
        await topic.until(lambda: len(topic.requests) == 2)
        async with stage.join(topic) as newcomer, stage.join(topic, "?from=start"):
            topic.answer = None
            topic.publish()
            assert (await newcomer.until_number(3)).numbers == [3]


async def test_waiting_subscribers_count_as_open_and_end_when_the_gateway_drains(tmp_path: Path) -> None:
    async with Upstream() as upstream, contextlib.AsyncExitStack() as stack:
        topic = upstream.add(Topic("/topic"))
        topic.answer = answer(503)
        async with reloading(tmp_path, shared("/", upstream.url), max_streams=2, drain_seconds=10.0) as gateway:
            browser, program, one_too_many = [
                await stack.enter_async_context(Subscriber(gateway.port, "/topic", headers=[("Accept", accept)]))
                for accept in ("text/event-stream", "*/*", "*/*")
            ]
            joining = [asyncio.create_task(subscriber.join()) for subscriber in (browser, program)]
            await until_figure(gateway, "gateway_open_requests 2.0")
            assert (await one_too_many.refused())[0] == 503
            assert not any(task.done() for task in joining)
            loop = asyncio.get_running_loop()
            begun = loop.time()
        assert loop.time() - begun < 5, "the grace time is twice that"
        for subscriber in await asyncio.gather(*joining):
            assert await subscriber.until_end() is End.COMPLETE  # an EventSource would give up for good on any other answer
            [retry] = subscriber.received.retries
            assert retry >= 1000


async def test_waiting_subscribers_move_to_the_new_route_when_theirs_changes(tmp_path: Path) -> None:
    async with Upstream() as old, Upstream() as new, reloading(tmp_path, shared("/", old.url)) as gateway:
        topic = old.add(Topic("/topic"))
        topic.answer = answer(503)
        new.add(Topic("/topic"))
        async with waiting(Subscriber(gateway.port, "/topic"), topic) as joining:
            await gateway.reload(shared("/", new.url))
            subscriber = await joining
            assert await subscriber.until_end() is End.COMPLETE
            assert subscriber.received.retries
            await subscriber.join()
        assert len(new.topics["/topic"].requests) == 1


async def until_figure(gateway: Reloading, *figures: str) -> None:
    """Return when the metrics contain all of this."""
    async with asyncio.timeout(GUARD_SECONDS):
        while not all(figure in gateway.gateway.metrics_text() for figure in figures):
            await asyncio.sleep(0.01)
