"""Where a subscriber begins: with new events, with the history, or after its last event."""

import asyncio
import json

import pytest

from tests.kit.downstream import End
from tests.shared.conftest import Stage
from tests.shared.event_log import LINE_ENDS, WILD, WITHOUT_IDS, Style
from tests.shared.proof import Proof
from tests.shared.upstream import Resume, Topic, cut_at_random

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def published(stage: Stage, topic: Topic, count: int) -> None:
    """Publish, and return when the gateway has it all."""
    async with stage.join(topic) as witness:
        topic.publish(count)
        await witness.until_number(len(topic.log))


async def test_newcomer_begins_with_new_events(stage: Stage) -> None:
    topic = stage.topic()
    await published(stage, topic, 3)
    async with stage.join(topic) as subscriber:
        blocks = topic.publish(2)
        received = await subscriber.until_number(5)
        assert received.blocks == blocks
    assert len(topic.requests) == 1


async def test_newcomer_begins_with_the_history_where_the_route_says_so(stage: Stage) -> None:
    topic = stage.topic("/history")
    await published(stage, topic, 3)
    async with stage.join(topic) as subscriber:
        topic.publish(2)
        assert (await subscriber.until_number(5)).events == topic.log.blocks


async def test_newcomer_gets_the_kept_part_of_the_history(stage: Stage) -> None:
    topic = stage.topic("/short")
    await published(stage, topic, 20)
    async with stage.join(topic) as subscriber:
        received = await subscriber.until_number(20)
        assert received.numbers == [16, 17, 18, 19, 20]
        assert received.gaps == []  # it has missed nothing that it requested


async def test_events_that_are_too_old_are_no_longer_kept(stage: Stage) -> None:
    topic = stage.topic("/young")
    async with stage.join(topic) as witness:
        topic.publish(3)
        await witness.until_number(3)
        async with asyncio.timeout(60):
            while True:
                async with stage.join(topic) as newcomer:
                    topic.publish()
                    if (await newcomer.until_number(len(topic.log))).numbers[0] > 3:
                        break
                await asyncio.sleep(0.1)
        assert (await witness.until_number(len(topic.log))).events == topic.log.blocks


@pytest.mark.parametrize("style", LINE_ENDS)
async def test_resumed_stream_continues_after_the_last_event_id(stage: Stage, style: str) -> None:
    topic = stage.topic(style=Style(line_ends=(LINE_ENDS[style],)))
    await published(stage, topic, 6)
    for last in range(7):
        async with stage.join(topic, last_event_id=str(last) if last else "") as subscriber:
            topic.publish()
            received = await subscriber.until_number(len(topic.log))
            proof = Proof(topic.log, begin=last or len(topic.log) - 1)
            for block in received.blocks:
                proof.take(block)
    assert len(topic.requests) == 1


async def test_event_before_the_history_is_fetched_by_a_private_request(stage: Stage) -> None:
    topic = stage.topic("/short")
    await published(stage, topic, 40)
    async with stage.join(topic, last_event_id="3") as subscriber:
        received = await subscriber.until_number(40)
        blocks = topic.publish(3)
        await subscriber.until_number(43)
        assert received.numbers == list(range(4, 44))
        assert received.events[-3:] == blocks
        assert received.gaps == []
        assert (received.told_ahead, received.retries) == ([], [20])  # by the private stream itself
        await topic.until(lambda: topic.open == 1)  # the private stream is over
    assert topic.asked_after == [None, "3"]


async def test_catch_up_loses_no_event_while_many_are_published(stage: Stage) -> None:
    topic = stage.topic("/short", style=WILD)
    topic.pieces = cut_at_random(topic.log._rng)
    await published(stage, topic, 300)
    publishing = asyncio.create_task(publish_steadily(topic, until=1500))
    async with stage.subscriber(topic, last_event_id="1") as subscriber:
        await subscriber.join()
        proof = Proof(topic.log, begin=1)
        async with asyncio.timeout(60):
            while proof.at < 1500:
                if subscriber.end is not None:  # it was slower than five blocks
                    await subscriber.join()
                for block in await subscriber.read():
                    proof.take(block)
    await publishing


async def publish_steadily(topic: Topic, until: int) -> None:
    while len(topic.log) < until:
        topic.publish(10)
        await asyncio.sleep(0.005)


async def test_many_subscribers_that_resume_at_the_same_event_share_one_private_request(stage: Stage) -> None:
    topic = stage.topic("/some")
    await published(stage, topic, 200)
    await open_requests(stage, 0)
    topic.speaking.clear()
    subscribers = [stage.subscriber(topic, last_event_id=last) for last in ["7"] * 30 + ["9"] * 5]
    joining = asyncio.gather(*(subscriber.join() for subscriber in subscribers))
    await topic.until(lambda: len(topic.requests) == 3)
    await open_requests(stage, len(subscribers))
    topic.speaking.set()
    await joining
    topic.publish()
    for subscriber in subscribers:
        received = await subscriber.until_number(201)
        assert received.numbers == list(range(received.numbers[0], 202))
        subscriber.leave()
    assert [subscriber.received.numbers[0] for subscriber in subscribers] == [8] * 30 + [10] * 5
    assert topic.asked_after[0] is None
    assert sorted(topic.asked_after[1:], key=str) == ["7", "9"]


async def open_requests(stage: Stage, count: int) -> None:
    """Return when the gateway has `count` open requests."""
    async with asyncio.timeout(60):
        while await stage.gateway.metric("gateway_open_requests") != count:
            await asyncio.sleep(0.01)


async def test_late_subscriber_is_served_while_another_catches_up_slowly_from_the_same_event(stage: Stage) -> None:
    """The first one's private request has read on, and no longer keeps the events that the second one needs."""
    topic = stage.topic("/small", style=Style(large=1.0))
    topic.publish(400)  # some sixteen megabytes
    async with stage.join(topic, last_event_id="1", receive_buffer=4096) as slow:
        async with stage.join(topic, last_event_id="1") as quick:
            proof = Proof(topic.log, begin=1)
            async with asyncio.timeout(60):
                while proof.at < 400:
                    for block in await quick.read():
                        proof.take(block)
        assert slow.end is None


@pytest.mark.parametrize("resume", ["exact", "inclusive"])
async def test_resuming_works_in_a_gateway_that_has_just_started_to_follow(stage: Stage, resume: Resume) -> None:
    """Its history is still empty."""
    topic = stage.topic(resume=resume)
    topic.publish(10)
    async with stage.join(topic, last_event_id="4") as subscriber:
        assert (await subscriber.until_number(10)).numbers == [5, 6, 7, 8, 9, 10]
        blocks = topic.publish(2)
        received = await subscriber.until_number(12)
        assert received.events[-2:] == blocks
        assert (received.numbers, received.gaps) == ([*range(5, 13)], [])
        async with stage.join(topic) as newcomer:
            topic.publish()
            assert (await newcomer.until_number(13)).numbers == [13]
        assert (await subscriber.until_number(13)).numbers == [*range(5, 14)]


@pytest.mark.parametrize("resume", ["404", "409"])
async def test_subscriber_gets_a_gap_when_the_upstream_cannot_resume(stage: Stage, resume: Resume) -> None:
    topic = stage.topic("/short", resume=resume)
    await published(stage, topic, 20)
    async with stage.join(topic, last_event_id="3") as subscriber:
        blocks = topic.publish()
        received = await subscriber.until_number(21)
        [gap] = received.gaps
        assert gap["asked"] == "3"
        assert gap["first_retained"] == str(received.numbers[0])
        assert gap["reason"]
        assert received.told_ahead == [20]
        assert received.numbers in ([16, 17, 18, 19, 20, 21], [17, 18, 19, 20, 21])  # all that is kept
        assert received.events[-1:] == blocks
        assert received.blocks.index(received.events[0]) > [b"event: gap" in block for block in received.blocks].index(True)


async def test_subscriber_gets_a_gap_when_the_upstream_ignores_its_last_event_id(stage: Stage) -> None:
    """The next event shows it. Either stream may bring it first; the private one may have sent it to the subscriber already."""
    topic = stage.topic("/short", resume="ignored")
    await published(stage, topic, 20)
    async with stage.join(topic, last_event_id="3") as subscriber:
        topic.publish(2)
        await subscriber.until_number(22)
        received = await subscriber.until_gap()
        [gap] = received.gaps
        assert (gap["asked"], gap["first_retained"]) == ("3", str(received.numbers[0]))
        assert received.numbers == list(range(received.numbers[0], 23))
        assert received.numbers[0] in (17, 18, 21)


async def test_gap_is_ignored_where_the_route_says_so(stage: Stage) -> None:
    topic = stage.topic("/short-silent", resume="404")
    await published(stage, topic, 20)
    async with stage.join(topic, last_event_id="3") as subscriber:
        topic.publish()
        received = await subscriber.until_number(21)
        assert received.gaps == []
        assert received.numbers in ([16, 17, 18, 19, 20, 21], [17, 18, 19, 20, 21])


async def test_newcomer_gets_the_reconnection_time_in_a_line_before_the_first_block(stage: Stage) -> None:
    topic = stage.topic(retry=30)
    async with stage.join(topic) as first:
        topic.publish(3)
        await first.until_number(3)
        async with stage.join(topic) as live, stage.join(topic, last_event_id="1") as resumed:
            topic.publish()
            for subscriber in (live, resumed):
                await subscriber.until_number(4)
                assert (subscriber.received.told_ahead, subscriber.received.retries) == ([30], [])
            assert live.received.blocks == topic.log.blocks[3:]
            assert resumed.received.blocks == topic.log.blocks[1:]
        topic.retry = 40
        topic.kill()
        topic.publish()
        await first.until_number(5)
        async with stage.join(topic) as newest:
            topic.publish()
            assert (await newest.until_number(6)).told_ahead == [40]


async def test_newcomer_gets_the_last_event_id_before_an_event_without_one_and_can_resume(stage: Stage) -> None:
    topic = stage.topic("/beat", retry=None)
    async with stage.join(topic) as first, stage.subscriber(topic) as newcomer:
        topic.publish(3)
        await first.until_number(3)
        await newcomer.join()
        await newcomer.until(lambda: newcomer.received.beats >= 2)  # none of which may contain the line
        topic.log.style = WITHOUT_IDS
        [without_id] = topic.publish()
        received = await newcomer.until(lambda: bool(newcomer.received.blocks))
        assert received.blocks == [b"id: 3\n" + without_id]
        await first.until_number(4)
        assert first.received.blocks == topic.log.blocks
        newcomer.leave()
        [missed] = topic.publish()
        await first.until_number(5)
        await newcomer.join()
        received = await newcomer.until_number(5)
        assert received.blocks[1:] == [without_id, missed], "the events after event 3"
    assert len(topic.requests) == 1


async def test_newcomer_gets_a_first_event_with_an_id_unchanged(stage: Stage) -> None:
    topic = stage.topic(retry=None)
    async with stage.join(topic) as first:
        topic.publish(3)
        await first.until_number(3)
        async with stage.join(topic) as newcomer:
            blocks = topic.publish()
            assert (await newcomer.until_number(4)).blocks == blocks


async def test_block_with_only_an_id_updates_the_last_event_id(stage: Stage) -> None:
    topic = stage.topic("/live", style=Style(without_data=1.0))
    async with stage.join(topic) as subscriber:
        topic.publish(4)
        await subscriber.until_number(4)
        subscriber.leave()
        topic.publish(2)
        await subscriber.join()
        assert (await subscriber.until_number(6)).numbers == [1, 2, 3, 4, 5, 6]
    assert len(topic.requests) == 1


async def test_client_of_http_1_0_gets_the_stream_without_chunks(stage: Stage) -> None:
    topic = stage.topic()
    async with stage.join(topic, version="1.0") as old, stage.join(topic) as new:
        assert old.answer.head.value("Transfer-Encoding") is None
        blocks = topic.publish(3)
        assert (await old.until_number(3)).events == blocks
        assert (await new.until_number(3)).events == blocks
        topic.answer = b"HTTP/1.1 204 No Content\r\n\r\n"
        topic.kill()
        assert await old.until_end() is End.CLOSED
        assert await new.until_end() is End.COMPLETE
    assert len(topic.requests) == 2


async def test_gap_event_is_json_that_any_client_can_read(stage: Stage) -> None:
    topic = stage.topic("/history", resume="404")
    await published(stage, topic, 2)
    async with stage.join(topic, last_event_id='"七"') as subscriber:
        received = await subscriber.until_gap()
        [block] = [block for block in received.blocks if b"event: gap" in block]
        lines = block.decode().splitlines()
        data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
        assert sorted(json.loads("\n".join(data))) == ["asked", "first_retained", "reason"]
        assert json.loads("\n".join(data))["asked"] == '"七"'
