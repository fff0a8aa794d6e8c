"""The upstream goes away and returns unnoticed by subscribers; or it goes for good, and they are told the truth."""

import asyncio
import json
import random

import pytest

from eventstream import Parser
from tests.kit.downstream import End
from tests.shared.conftest import BOTH_SCHEMES, Stage
from tests.shared.event_log import LINE_ENDS, WITHOUT_IDS, Style
from tests.shared.proof import Proof
from tests.shared.upstream import DEATHS, Death, Topic, cut_at_random

pytestmark = [pytest.mark.asyncio(loop_scope="session"), BOTH_SCHEMES]

NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


async def test_restart_of_the_upstream_is_invisible(stage: Stage) -> None:
    topic = stage.topic("/beat")
    async with stage.joined(topic, 10) as subscribers:
        topic.publish(3)
        for subscriber in subscribers:
            await subscriber.until_number(3)
        async with stage.upstream.away():
            topic.publish(3)
            await subscribers[0].until(lambda: subscribers[0].received.beats >= 3)  # heartbeats continue
        topic.publish(3)
        for subscriber in subscribers:
            assert (await subscriber.until_number(9)).events == topic.log.blocks
            assert (subscriber.end, subscriber.received.gaps) == (None, [])
    assert topic.asked_after == [None, "3"]


@pytest.mark.parametrize("death", DEATHS)
@pytest.mark.parametrize("style", LINE_ENDS)
async def test_stream_that_dies_after_any_byte_is_resumed(stage: Stage, death: Death, style: str) -> None:
    rng = random.Random(f"{death} {style}")
    log_style = Style(line_ends=(LINE_ENDS[style],), several_lines=0.3, asides=0.1)
    topic = stage.topic(style=log_style, retry=0, rng=rng, pieces=cut_at_random(rng))
    topic.lifetime = lambda: (death, rng.randint(60, 1500))
    async with stage.join(topic) as subscriber:
        proof = Proof(topic.log, begin=0)
        topic.publish(100)
        async with asyncio.timeout(60):
            while proof.at < 100:
                for block in await subscriber.read():
                    proof.take(block)
    assert len(topic.requests) > 4


async def test_subscriber_may_join_and_resume_while_the_upstream_is_down(stage: Stage) -> None:
    topic = stage.topic("/history")
    async with stage.join(topic) as first:
        topic.publish(3)
        await first.until_number(3)
        async with stage.upstream.away(), stage.join(topic) as newcomer, stage.join(topic, last_event_id="2") as resumed:
            assert (await newcomer.until_number(3)).numbers == [1, 2, 3]
            assert (await resumed.until_number(3)).numbers == [3]
        topic.publish()
        assert (await first.until_number(4)).numbers == [1, 2, 3, 4]


async def test_catch_up_waits_for_an_upstream_that_is_down(stage: Stage) -> None:
    topic = stage.topic("/short")
    async with stage.join(topic) as first:
        topic.publish(30)
        await first.until_number(30)
        topic.answer = UNAVAILABLE
        async with stage.subscriber(topic, last_event_id="2") as late:
            joining = asyncio.create_task(late.join())
            await topic.until(lambda: len(topic.requests) >= 2)
            topic.answer = None
            await joining
            topic.publish()
            received = await late.until_number(31)
            assert received.numbers == list(range(3, 32))
            assert received.gaps == []


async def test_silent_upstream_gets_heartbeats_from_the_gateway(stage: Stage) -> None:
    topic = stage.topic("/beat")
    async with stage.joined(topic, 5) as subscribers:
        for subscriber in subscribers:
            received = await subscriber.until(lambda: subscriber.received.beats >= 4)  # noqa: B023
            assert received.events == []
        blocks = topic.publish(2)
        for subscriber in subscribers:
            assert (await subscriber.until_number(2)).events == blocks


async def test_upstream_that_is_silent_for_too_long_gets_a_new_request(stage: Stage) -> None:
    topic = stage.topic("/idle")
    async with stage.join(topic) as subscriber:
        topic.publish(2)
        await subscriber.until_number(2)
        await topic.until(lambda: len(topic.requests) >= 3)
        topic.publish(2)
        assert (await subscriber.until_number(4)).events == topic.log.blocks
    assert topic.asked_after[:3] == [None, "2", "2"]


async def test_stream_without_ids_that_was_lost_has_a_gap(stage: Stage) -> None:
    topic = stage.topic(style=WITHOUT_IDS)
    async with stage.joined(topic, 3) as subscribers:
        topic.publish(3)
        for subscriber in subscribers:
            await subscriber.until_number(3)
        async with stage.upstream.away():
            topic.publish(2)  # no subscriber will ever get these
        await topic.until(lambda: topic.open == 1)
        topic.publish(2)
        for subscriber in subscribers:
            received = await subscriber.until_number(7)
            assert received.numbers == [1, 2, 3, 6, 7]
            assert [bool(gap["reason"]) for gap in received.gaps] == [True]
            at = next(place for place, block in enumerate(received.blocks) if b"event: gap" in block)
            assert topic.log.blocks[2] in received.blocks[:at]
            assert topic.log.blocks[5] in received.blocks[at:]


async def test_stream_without_ids_that_was_lost_has_no_gap_event_where_the_route_says_so(stage: Stage) -> None:
    topic = stage.topic("/silent", style=WITHOUT_IDS)
    async with stage.join(topic) as subscriber:
        topic.publish(2)
        await subscriber.until_number(2)
        topic.kill("reset")
        await topic.until(lambda: len(topic.requests) == 2 and topic.open == 1)
        topic.publish()
        received = await subscriber.until_number(3)
        assert (received.numbers, received.gaps) == ([1, 2, 3], [])


async def test_gap_is_kept_for_subscribers_that_resume_across_it(stage: Stage) -> None:
    topic = stage.topic("/assign", style=WITHOUT_IDS)
    async with stage.join(topic) as leaving, stage.join(topic) as staying:
        topic.publish(2)
        await leaving.until_number(2)
        await staying.until_number(2)
        leaving.leave()
        topic.kill("close")
        await topic.until(lambda: len(topic.requests) == 2 and topic.open == 1)
        topic.publish(2)
        await staying.until_number(4)
        await leaving.join()
        received = await leaving.until_number(4)
        assert received.numbers == staying.received.numbers == [1, 2, 3, 4]
        assert len(received.gaps) == len(staying.received.gaps) == 1


async def test_event_that_an_inclusive_upstream_repeats_is_not_repeated_to_subscribers(stage: Stage) -> None:
    topic = stage.topic(resume="inclusive")
    async with stage.joined(topic, 3) as subscribers:
        for number in range(1, 5):
            topic.publish()
            for subscriber in subscribers:
                await subscriber.until_number(number)
            topic.kill()
            await topic.until(lambda: len(topic.requests) == number + 1 and topic.open == 1)  # noqa: B023
        topic.publish()
        for subscriber in subscribers:
            received = await subscriber.until_number(5)
            assert received.events == topic.log.blocks
            assert received.gaps == []


async def test_event_that_came_without_its_last_lf_is_not_repeated_to_subscribers(stage: Stage) -> None:
    topic = stage.topic(resume="inclusive", style=Style(line_ends=(b"\r\n",)))
    async with stage.join(topic) as subscriber:
        for number in (1, 2):
            [block] = topic.publish()
            topic.kill("complete", after_bytes=len(block) - 1)  # the CR already ends the block
            await subscriber.until_number(number)
            await topic.until(lambda: len(topic.requests) == number + 1 and topic.open == 1)  # noqa: B023
        topic.publish()
        assert (await subscriber.until_number(3)).numbers == [1, 2, 3]


async def test_upstream_that_always_starts_over_repeats_no_event_to_subscribers(stage: Stage) -> None:
    """It ignores `Last-Event-ID`, and always sends everything."""
    topic = stage.topic(resume="ignored", begin="start")
    async with stage.join(topic) as subscriber:
        for number in (3, 6, 9):
            topic.publish(3)
            await subscriber.until_number(number)
            topic.kill()
        topic.publish()
        received = await subscriber.until_number(10)
        assert received.events == topic.log.blocks
        assert received.gaps == []
    assert topic.asked_after == [None, "3", "6", "9"]


async def test_204_ends_the_stream_for_all(stage: Stage) -> None:
    topic = stage.topic()
    async with stage.joined(topic, 5) as subscribers:
        topic.publish(2)
        for subscriber in subscribers:
            await subscriber.until_number(2)
        topic.answer = NO_CONTENT
        topic.kill("complete")
        for subscriber in subscribers:
            assert await subscriber.until_end() is End.COMPLETE
            assert subscriber.received.events == topic.log.blocks
        topic.answer = None
        async with stage.join(topic) as newcomer:  # a subscriber that joins now starts a new one
            blocks = topic.publish()
            assert (await newcomer.until_number(3)).events == blocks


@pytest.mark.parametrize("answer", [NOT_FOUND, NOT_FOUND.replace(b"404 Not Found", b"200 OK")])
async def test_final_refusal_cuts_the_stream_for_all(stage: Stage, answer: bytes) -> None:
    topic = stage.topic()
    async with stage.joined(topic, 5) as subscribers:
        topic.publish(2)
        for subscriber in subscribers:
            await subscriber.until_number(2)
        topic.answer = answer
        topic.kill()
        for subscriber in subscribers:
            assert await subscriber.until_end() in (End.CUT_SHORT, End.RESET)
            assert subscriber.received.events == topic.log.blocks
            assert subscriber.received.rest == b""


@pytest.mark.parametrize("fault", ["404", "too large"])
async def test_cut_stream_ends_with_an_error_event_where_the_route_says_so(stage: Stage, fault: str) -> None:
    topic = stage.topic("/error-event" if fault == "404" else "/small-blocks")
    async with stage.joined(topic, 3) as subscribers:
        topic.publish(2)
        for subscriber in subscribers:
            await subscriber.until_number(2)
        if fault == "404":
            topic.answer = NOT_FOUND
            topic.kill()
        else:
            topic.log.style = Style(large=1.0)
            topic.publish()
        for subscriber in subscribers:
            end = await subscriber.until_end()
            assert subscriber.received.events == topic.log.blocks[:2]
            if fault == "404":
                assert end is End.COMPLETE
                [error] = Parser().feed(subscriber.received.blocks[-1])
                assert error.type == "error"
                assert json.loads(error.data)["message"].startswith("Upstream lost: ")
            else:
                assert end in (End.CUT_SHORT, End.RESET)


async def test_503_for_a_followed_stream_is_retried(stage: Stage) -> None:
    topic = stage.topic()
    async with stage.join(topic) as subscriber:
        topic.publish(2)
        await subscriber.until_number(2)
        topic.answer = UNAVAILABLE
        topic.kill("reset")
        await topic.until(lambda: len(topic.requests) >= 3)
        topic.answer = None
        topic.publish(2)
        assert (await subscriber.until_number(4)).events == topic.log.blocks
        assert subscriber.received.gaps == []


async def test_unfinished_block_of_a_lost_stream_is_never_seen(stage: Stage) -> None:
    topic: Topic = stage.topic(style=Style(large=1.0))
    async with stage.join(topic) as subscriber:
        topic.publish()
        await subscriber.until_number(1)
        topic.kill("close", after_bytes=10_000)
        topic.publish()
        received = await subscriber.until_number(2)
        assert received.events == topic.log.blocks
    assert topic.asked_after == [None, "1"]
