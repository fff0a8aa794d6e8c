"""The upstream of these tests works: a subscriber without a gateway proves it."""

import asyncio
import random

import pytest

from tests.kit.downstream import End
from tests.shared.event_log import WILD
from tests.shared.proof import Proof
from tests.shared.subscribing import Subscriber
from tests.shared.upstream import DEATHS, Death, Topic, Upstream, cut_at_random

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("death", DEATHS)
async def test_stream_dies_anywhere_and_is_resumed_exactly(upstream: Upstream, death: Death) -> None:
    rng = random.Random(11)
    topic = upstream.add(Topic("/news", WILD, begin="start", rng=rng, pieces=cut_at_random(rng)))
    topic.publish(400)
    topic.lifetime = lambda: (death, rng.randint(1, 100_000))
    async with Subscriber(upstream.port, "/news") as subscriber:
        proof = Proof(topic.log, begin=0)
        while proof.at < 400:
            await subscriber.join()
            async with asyncio.timeout(60):
                while subscriber.end is None and proof.at < 400:
                    for block in await subscriber.read():
                        proof.take(block)
            ends = {"reset": End.RESET, "close": End.CUT_SHORT, "complete": End.COMPLETE}
            assert subscriber.end in (None, ends[death])
            subscriber.leave()
    assert len(topic.requests) > 2
    assert topic.asked_after[0] is None
    assert None not in topic.asked_after[1:]


async def test_inclusive_resume_repeats_one_event_and_an_ignored_one_begins_with_new_events(upstream: Upstream) -> None:
    topic = upstream.add(Topic("/news", resume="inclusive"))
    topic.publish(4)
    async with Subscriber(upstream.port, "/news", last_event_id="2") as subscriber:
        await subscriber.join()
        assert (await subscriber.until_number(4)).numbers == [2, 3, 4]
        topic.resume = "ignored"
        subscriber.leave()
        await subscriber.join()
        topic.publish()
        assert (await subscriber.until_number(5)).numbers == [2, 3, 4, 5]
        topic.resume = "409"
        subscriber.leave()
        assert await subscriber.refused() == (409, b"")


async def test_upstream_restarts_on_its_port_with_its_log(upstream: Upstream) -> None:
    topic = upstream.add(Topic("/news"))
    async with Subscriber(upstream.port, "/news") as subscriber:
        await subscriber.join()
        topic.publish()
        await subscriber.until_number(1)
        async with upstream.away():
            await subscriber.until_end()
            with pytest.raises(ConnectionRefusedError):
                await subscriber.join()
            topic.publish(2)
        await subscriber.join()
        assert (await subscriber.until_number(3)).numbers == [1, 2, 3]


async def test_silent_upstream_sends_nothing_not_even_a_head(upstream: Upstream) -> None:
    topic = upstream.add(Topic("/news"))
    topic.speaking.clear()
    async with Subscriber(upstream.port, "/news") as subscriber:
        joining = asyncio.create_task(subscriber.join())
        await topic.until(lambda: len(topic.requests) == 1)
        assert not joining.done()
        topic.speaking.set()
        await joining
        await topic.until(lambda: topic.open == 1)
        subscriber.leave()
        await topic.until(lambda: topic.open == 0)
