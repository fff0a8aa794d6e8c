"""Connections that the gateway ends: at a block boundary, not looking complete, each with its own reconnection time."""

import asyncio
import json

import pytest

from tests.kit.downstream import End
from tests.kit.stack import EXIT_SECONDS
from tests.shared.conftest import LIMIT_SECONDS, Stage, StartStage
from tests.shared.event_log import PLAIN, Style
from tests.shared.upstream import Topic

pytestmark = pytest.mark.asyncio(loop_scope="session")

SUBSCRIBERS = 40


async def test_connections_end_after_their_time_and_resume_without_loss(stage: Stage) -> None:
    topic = stage.topic("/limited", retry=None)
    async with stage.joined(topic, SUBSCRIBERS) as subscribers:
        topic.publish(2)
        for ending in asyncio.as_completed([subscriber.until_end() for subscriber in subscribers]):
            assert await ending in (End.CUT_SHORT, End.RESET)
        lines = [line for line in stage.gateway.process.log() if line.get("path") == topic.path and line.get("verdict") == "expired"]
        lasted = [line["seconds"] for line in lines]  # as measured by the gateway: here a busy machine blurs the times
        assert len(lasted) == SUBSCRIBERS
        assert min(lasted) > LIMIT_SECONDS / 2
        assert max(lasted) - min(lasted) > 0.05, "they end in one wave"
        retries = [subscriber.received.retries for subscriber in subscribers]
        assert all(len(each) == 1 for each in retries)
        assert len({each[0] for each in retries}) > SUBSCRIBERS // 2, "they would reconnect in one wave"
        topic.publish(2)
        for subscriber in subscribers:
            assert subscriber.received.rest == b""
            await subscriber.join()
            assert (await subscriber.until_number(4)).events == topic.log.blocks
    assert len(topic.requests) == 1


async def test_drain_sends_each_subscriber_its_own_reconnection_time(start_stage: StartStage) -> None:
    async with start_stage({}, drain_seconds=3) as stage:
        topic = stage.topic("", retry=None)
        async with stage.joined(topic, SUBSCRIBERS) as subscribers:
            topic.publish(2)
            for subscriber in subscribers:
                await subscriber.until_number(2)
            stopping = asyncio.create_task(stage.gateway.stop())
            for subscriber in subscribers:
                assert await subscriber.until_end() in (End.CUT_SHORT, End.RESET)
                assert subscriber.received.events == topic.log.blocks
                assert subscriber.received.rest == b""
            await stopping
            retries = [subscriber.received.retries for subscriber in subscribers]
            assert all(len(each) == 1 and each[0] >= 1000 for each in retries), retries
            assert len({each[0] for each in retries}) > SUBSCRIBERS // 2
            await topic.until(lambda: topic.open == 0)


async def test_every_client_gets_its_reconnection_time_in_a_line_that_is_no_block(start_stage: StartStage) -> None:
    async with start_stage({}, drain_seconds=2) as stage:
        topic = stage.topic("", retry=None)
        async with stage.join(topic, headers=[("Accept", "application/json")]) as subscriber:
            topic.publish()
            await subscriber.until_number(1)
            await asyncio.gather(stage.gateway.stop(), subscriber.until_end())
            assert subscriber.received.blocks == topic.log.blocks
            assert len(subscriber.received.retries) == 1


async def test_subscribers_that_lag_are_drained_in_time(start_stage: StartStage) -> None:
    async with start_stage({}, drain_seconds=2) as stage:
        topic = stage.topic("", style=Style(large=1.0))
        async with stage.join(topic, receive_buffer=4096) as stalled, stage.join(topic) as fast:
            topic.publish(200)
            await fast.until_number(200)
            await asyncio.wait_for(stage.gateway.stop(), 2 + EXIT_SECONDS)
            stalled.downstream.widen()
            assert await stalled.until_end() in (End.CUT_SHORT, End.RESET)
            numbers = stalled.received.numbers
            assert numbers == list(range(1, len(numbers) + 1))


async def test_subscribers_beyond_the_limit_are_refused_and_the_others_stay(start_stage: StartStage) -> None:
    async with start_stage({}, max_streams=5) as stage:
        topic = stage.topic("")
        async with stage.joined(topic, 5) as subscribers, stage.subscriber(topic) as one_too_many:
            await one_too_many.join()  # an EventSource would give up for good on any other answer
            assert await one_too_many.until_end() is End.COMPLETE
            [retry] = one_too_many.received.retries
            assert retry >= 1000
            async with stage.subscriber(topic, headers=[("Accept", "*/*")]) as other_client:
                status, body = await other_client.refused()
                assert status == json.loads(body)["status"] == 503
                assert int(other_client.answer.head.value("Retry-After") or 0) > 0
            blocks = topic.publish(2)
            for subscriber in subscribers:
                assert (await subscriber.until_number(2)).events == blocks
    assert len(topic.requests) == 1


async def test_blocks_that_arrive_together_leave_together(stage: Stage) -> None:
    topic = stage.topic(retry=None)
    async with stage.subscriber(topic) as subscriber, stage.join(topic) as other:
        await subscriber.ask()
        downstream = subscriber.downstream
        async with asyncio.timeout(30):
            while b"\r\n\r\n" not in downstream.buffer:
                assert await downstream.fill()
        downstream.buffer.clear()
        blocks = b"".join(topic.publish(20))
        expected = b"%x\r\n%b\r\n" % (len(blocks), blocks)
        async with asyncio.timeout(30):
            while len(downstream.buffer) < len(expected):
                assert await downstream.fill()
        assert bytes(downstream.buffer) == expected
        await other.until_number(20)


async def test_lone_event_leaves_at_once(stage: Stage) -> None:
    """Measure the fastest of some, since the machine may be busy: a timer would delay each."""
    topic = stage.topic()
    loop = asyncio.get_running_loop()
    async with stage.join(topic) as subscriber:
        quickest = 1.0
        for number in range(1, 51):
            begun = loop.time()
            topic.publish()
            await subscriber.until_number(number)
            quickest = min(quickest, loop.time() - begun)
        assert quickest < 0.02


async def test_memory_of_all_histories_together_is_bounded(start_stage: StartStage) -> None:
    limit = 4 * 2**20
    async with start_stage({"initial": "history"}, max_history_bytes=limit) as stage:
        topics: list[Topic] = [stage.topic("", style=Style(large=0.5)) for _ in range(16)]
        subscribers = [stage.subscriber(topic) for topic in topics]
        try:
            for topic, subscriber in zip(topics, subscribers, strict=True):
                await subscriber.join()
                for _ in range(10):
                    topic.publish(10)
                    await subscriber.until_number(len(topic.log))
                assert subscriber.received.events == topic.log.blocks
            assert await stage.gateway.metric("gateway_history_bytes") <= limit
            assert sum(len(block) for topic in topics for block in topic.log.blocks) > 3 * limit
            for topic in topics:  # streams continue, and each still has something to resume from
                async with stage.join(topic, last_event_id="97") as resumed:
                    topic.publish()
                    assert (await resumed.until_number(101)).numbers == [98, 99, 100, 101]
        finally:
            for subscriber in subscribers:
                subscriber.leave()


async def test_memory_returns_when_subscribers_leave(start_stage: StartStage) -> None:
    async with start_stage({"linger_seconds": 0.1}, plain=True) as stage:
        peaks: list[int] = []
        while len(peaks) < 2 or peaks[-1] >= peaks[-2] + 200 * 3_000:
            assert len(peaks) < 5, f"each round of 200 subscribers left something: {peaks}"
            topic = stage.topic("", style=PLAIN)
            async with stage.joined(topic, 200) as subscribers:
                topic.publish(50)
                for subscriber in subscribers:
                    await subscriber.until_number(50)
                peaks.append(stage.gateway.memory())
            await topic.until(lambda: topic.open == 0)  # noqa: B023
