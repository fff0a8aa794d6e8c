"""Streams whose upstream sends no event IDs, and IDs that the gateway assigns."""

import re

import pytest

from tests.shared.conftest import Stage
from tests.shared.event_log import WITHOUT_IDS

pytestmark = pytest.mark.asyncio(loop_scope="session")

_ASSIGNED = re.compile(rb"id: ([0-9a-f]+)-(\d+)\n(?=\n\Z)")


async def test_unknown_id_on_a_stream_without_ids_is_a_gap(stage: Stage) -> None:
    topic = stage.topic("/history", style=WITHOUT_IDS)
    async with stage.join(topic) as witness:
        topic.publish(3)
        await witness.until_number(3)
    async with stage.join(topic, last_event_id="from-elsewhere") as subscriber:
        topic.publish()
        received = await subscriber.until_number(4)
        assert [gap["asked"] for gap in received.gaps] == ["from-elsewhere"]
        assert received.numbers == [1, 2, 3, 4]


async def test_assigned_ids_make_a_stream_resumable_and_leave_the_rest_of_each_block_unchanged(stage: Stage) -> None:
    topic = stage.topic("/assign", style=WITHOUT_IDS)
    async with stage.join(topic) as first:
        topic.publish(3)
        received = await first.until_number(3)
        ids = [_ASSIGNED.findall(block)[0] for block in received.events]
        assert [_ASSIGNED.sub(b"", block) for block in received.events] == topic.log.blocks
        assert len({*ids}) == 3
        epochs = {epoch for epoch, _ in ids}
        offsets = [int(offset) for _, offset in ids]
        assert len(epochs) == 1
        assert offsets == sorted(offsets)
        first.leave()
        topic.publish(2)
        await first.join()
        received = await first.until_number(5)
        assert received.numbers == [1, 2, 3, 4, 5]
        assert received.gaps == []
    assert topic.asked_after == [None]


async def test_ids_of_the_upstream_stay_where_ids_are_assigned(stage: Stage) -> None:
    topic = stage.topic("/assign")
    async with stage.join(topic) as subscriber:
        blocks = topic.publish(3)
        assert (await subscriber.until_number(3)).events == blocks


async def test_assigned_id_that_is_no_longer_kept_is_a_gap(stage: Stage) -> None:
    topic = stage.topic("/assign-short", style=WITHOUT_IDS)
    async with stage.join(topic) as subscriber, stage.join(topic) as witness:
        topic.publish()
        await subscriber.until_number(1)
        last = subscriber.received.last_event_id
        subscriber.leave()
        topic.publish(20)
        await witness.until_number(21)
        await subscriber.join()
        received = await subscriber.until_number(21)
        [gap] = received.gaps
        assert gap["asked"] == last
        assert f"id: {gap['first_retained']}\n".encode() in received.events[1]
        assert received.numbers in ([1, 17, 18, 19, 20, 21], [1, 18, 19, 20, 21])


async def test_assigned_ids_of_an_earlier_stream_are_a_gap(stage: Stage) -> None:
    topic = stage.topic("/assign", style=WITHOUT_IDS)
    async with stage.join(topic, last_event_id="0123abcd-7") as subscriber:
        topic.publish(2)
        received = await subscriber.until_number(2)
        assert [gap["asked"] for gap in received.gaps] == ["0123abcd-7"]
        assert received.numbers == [1, 2]
