"""The data that an upstream sends with its head, such as a snapshot, is for all subscribers that waited for it."""

import asyncio
from pathlib import Path

import pytest

from tests.kit.downstream import Downstream
from tests.kit.routed_gateway import running, shared
from tests.kit.upstream import EVENT_STREAM_HEAD, Disconnect, ScriptedUpstream, Silence, chunk
from tests.shared.conftest import Stage
from tests.shared.subscribing import ACCEPT, Subscriber
from tests.shared.upstream import Topic

pytestmark = pytest.mark.asyncio(loop_scope="session")


def snapshot(topic: Topic, count: int) -> bytes:
    """Return a head with `count` events after it in the same write."""
    return EVENT_STREAM_HEAD + b"".join(chunk(block) for block in topic.publish(count))


async def open_requests(stage: Stage, count: int) -> None:
    """Return when the gateway has `count` open requests."""
    async with asyncio.timeout(60):
        while await stage.gateway.metric("gateway_open_requests") != count:
            await asyncio.sleep(0.01)


async def received_by_all(stage: Stage, topic: Topic, subscribers: list[Subscriber], count: int) -> None:
    """Connect them before the upstream answers: each gets all events that come with its head."""
    topic.answer = snapshot(topic, count)
    topic.speaking.clear()
    await open_requests(stage, 0)
    try:
        joining = asyncio.gather(*(subscriber.join() for subscriber in subscribers))
        await open_requests(stage, len(subscribers))
        topic.speaking.set()
        await joining
        for subscriber in subscribers:
            received = await subscriber.until_number(count)
            assert (received.events, received.gaps) == (topic.log.blocks, [])
        assert len(topic.requests) == 1
    finally:
        for subscriber in subscribers:
            subscriber.leave()


@pytest.mark.parametrize("route", ["/live", "/history"])
async def test_events_that_come_with_the_head_reach_all_waiting_subscribers(stage: Stage, route: str) -> None:
    topic = stage.topic(route)
    await received_by_all(stage, topic, [stage.subscriber(topic) for _ in range(20)], 5)


async def test_snapshot_larger_than_the_history_reaches_all_waiting_subscribers(stage: Stage) -> None:
    topic = stage.topic("/short")
    await received_by_all(stage, topic, [stage.subscriber(topic) for _ in range(3)], 500)


async def test_events_that_come_with_the_head_reach_a_lone_subscriber_each_time(stage: Stage) -> None:
    for _ in range(20):
        topic = stage.topic()
        topic.answer = snapshot(topic, 2)
        async with stage.join(topic) as subscriber:
            assert (await subscriber.until_number(2)).events == topic.log.blocks


async def test_subscriber_that_joins_after_the_snapshot_begins_live(stage: Stage) -> None:
    topic = stage.topic(begin="start", retry=None)
    topic.publish(3)
    async with stage.join(topic) as first:
        await first.until_number(3)
        async with stage.join(topic) as later:
            topic.publish()
            assert (await later.until_number(4)).numbers == [4]
        assert (await first.until_number(4)).events == topic.log.blocks


async def test_client_that_disconnects_while_waiting_delays_no_other(stage: Stage) -> None:
    topic = stage.topic()
    topic.answer = snapshot(topic, 3)
    topic.speaking.clear()
    await open_requests(stage, 0)
    async with stage.subscriber(topic) as leaving, stage.subscriber(topic) as staying:
        await leaving.ask()
        joining = asyncio.create_task(staying.join())
        await open_requests(stage, 2)
        leaving.leave(reset=True)
        await open_requests(stage, 1)
        topic.speaking.set()
        await joining
        assert (await staying.until_number(3)).events == topic.log.blocks


async def test_catch_up_ends_when_its_only_client_disconnects_before_the_answer(stage: Stage) -> None:
    topic = stage.topic("/short")
    async with stage.join(topic) as witness:
        topic.publish(20)
        await witness.until_number(20)
        topic.answer = EVENT_STREAM_HEAD  # and nothing after it, for ever
        topic.speaking.clear()
        async with stage.subscriber(topic, last_event_id="3") as leaving:
            await leaving.ask()
            await topic.until(lambda: len(topic.requests) == 2)
        await open_requests(stage, 1)
        topic.speaking.set()
        await asyncio.wait_for(topic.requests[1].left.wait(), 30)


async def test_byte_order_mark_never_comes_first_for_a_subscriber(tmp_path: Path) -> None:
    """A browser would strip it, and find an event where the upstream's own readers find none."""
    mark = b"\xef\xbb\xbf"
    marked, events = mark + b"data: no event\n\n", [b"id: 1\ndata: a\n\n", b"id: 2\ndata: b\n\n"]
    scripts = [[EVENT_STREAM_HEAD, chunk(mark + marked + event), Disconnect()] for event in events]  # one mark belongs to each connection
    whole = b"".join(b":\n" + marked + event for event in events)
    async with (
        ScriptedUpstream(*scripts, [Silence()]) as upstream,
        running([shared("/", upstream.url)], tmp_path) as gateway,
        Downstream(gateway.port) as first,
        Downstream(gateway.port) as resumed,
    ):
        await first.ask("/", "GET", [ACCEPT])
        answer = await first.answer()
        assert await answer.receive_until(lambda body: body.endswith(events[1])) == whole
        await resumed.ask("/", "GET", [ACCEPT, ("Last-Event-ID", "1")])
        answer = await resumed.answer()
        assert await answer.receive_until(lambda body: body.endswith(events[1])) == b":\n" + marked + events[1]
