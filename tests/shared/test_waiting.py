"""Who subscribes while the upstream is down waits for it, and is told only when that takes too long."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.proxy.downstream import End
from tests.reload.reloading import Reloading, reloading, shared
from tests.shared.conftest import Stage
from tests.shared.subscribing import GUARD_SECONDS, Subscriber
from tests.shared.upstream import Topic, Upstream

pytestmark = pytest.mark.asyncio(loop_scope="session")

WORDS = {404: b"Not Found", 502: b"Bad Gateway", 503: b"Service Unavailable", 504: b"Gateway Timeout"}


def answer(status: int, *fields: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 %d %b" % (status, WORDS[status]), *fields, b"Content-Length: 4", b"", b"busy"])


@contextlib.asynccontextmanager
async def waiting(subscriber: Subscriber, topic: Topic, attempts: int = 1) -> AsyncIterator["asyncio.Task[Subscriber]"]:
    """A subscriber that is being kept waiting, after so many attempts in vain; it leaves in the end."""
    async with subscriber:
        joining = asyncio.create_task(subscriber.join())
        try:
            await topic.until(lambda: len(topic.requests) >= attempts)
            yield joining
        finally:
            joining.cancel()


async def test_restart_of_the_upstream_is_invisible_to_those_who_arrive_during_it(stage: Stage) -> None:
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
    assert len(topic.requests) == 1, "they share what they have waited for"


async def test_upstream_that_answers_like_one_that_is_being_started_is_waited_for(stage: Stage) -> None:
    """Also one that hangs up without an answer."""

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


async def test_who_waits_is_resumed_behind_its_last_event_id(stage: Stage) -> None:
    topic = stage.topic()
    topic.publish(5)
    topic.answer = answer(503)
    async with waiting(stage.subscriber(topic, last_event_id="3"), topic) as joining:
        topic.answer = None
        subscriber = await joining
        assert (await subscriber.until_number(5)).numbers == [4, 5]
        assert subscriber.received.gaps == []


async def test_who_has_waited_long_enough_is_told_why_and_when_to_come_back(stage: Stage) -> None:
    topic = stage.topic("/half-second")
    loop = asyncio.get_running_loop()
    begun = loop.time()
    async with stage.upstream.away(), stage.subscriber(topic) as subscriber:
        status, body = await subscriber.refused()
        assert loop.time() - begun > 0.2, "it was not kept waiting"
        assert status == json.loads(body)["status"] == 502
        assert "no event stream" in json.loads(body)["detail"]
        assert int(subscriber.answer.head.value("Retry-After") or 0) > 0
    async with stage.join(topic) as subscriber:  # and that is not held against the upstream
        blocks = topic.publish()
        assert (await subscriber.until_number(1)).events == blocks


async def test_503_is_given_as_it_is_when_it_was_waited_out_in_vain(stage: Stage) -> None:
    topic = stage.topic("/half-second")
    topic.answer = answer(503, b"X-Reason: tired")
    loop = asyncio.get_running_loop()
    begun = loop.time()
    async with stage.subscriber(topic) as subscriber:
        assert await subscriber.refused() == (503, b"busy")
        assert loop.time() - begun > 0.2, "it was not kept waiting"
        assert subscriber.answer.head.value("X-Reason") == "tired"


async def test_upstream_that_asks_to_be_left_alone_for_longer_than_one_waits_is_not_waited_for(stage: Stage) -> None:
    topic = stage.topic()
    topic.answer = answer(503, b"Retry-After: 60")
    async with stage.subscriber(topic) as subscriber:
        assert await subscriber.refused() == (503, b"busy")
        assert subscriber.answer.head.value("Retry-After") == "60"


async def test_answer_that_forbids_to_go_on_is_given_to_those_who_wait(stage: Stage) -> None:
    topic = stage.topic()
    topic.answer = answer(503)
    async with stage.subscriber(topic) as subscriber:
        refused = asyncio.create_task(subscriber.refused())
        await topic.until(lambda: len(topic.requests) >= 1)
        topic.answer = answer(404)
        assert await refused == (404, b"busy")


async def test_upstream_is_left_alone_as_soon_as_nobody_waits_for_it(tmp_path: Path) -> None:
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


async def test_beginning_of_a_stream_that_is_followed_is_waited_for_with_an_open_stream(stage: Stage) -> None:
    """Its head is known already, so those who join need not wait for it."""
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


async def test_those_who_wait_count_as_open_and_are_let_go_when_the_gateway_drains(tmp_path: Path) -> None:
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


async def test_those_who_wait_are_sent_to_the_new_route_when_theirs_changes(tmp_path: Path) -> None:
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
    """Returns when the metrics say all of this."""
    async with asyncio.timeout(GUARD_SECONDS):
        while not all(figure in gateway.gateway.figures() for figure in figures):
            await asyncio.sleep(0.01)
