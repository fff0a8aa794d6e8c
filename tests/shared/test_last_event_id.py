"""The places of a client's last event ID: one header field, several, or the query."""

import pytest

from tests.shared.conftest import Stage

pytestmark = pytest.mark.asyncio(loop_scope="session")

SPELLINGS = ["last_event_id", "lastEventId", "lastEventID", "Last-Event-ID"]


async def test_last_of_several_fields_counts(stage: Stage) -> None:
    topic = stage.topic()
    async with stage.join(topic) as witness:
        topic.publish(5)
        await witness.until_number(5)
        async with stage.join(topic, headers=[("Last-Event-ID", "1"), ("last-event-id", "4")], last_event_id="3") as subscriber:
            assert (await subscriber.until_number(5)).numbers == [4, 5]
    assert len(topic.requests) == 1


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_query_resumes_the_same_stream_as_the_header(stage: Stage, spelling: str) -> None:
    topic = stage.topic()
    async with stage.join(topic, "?a=1") as witness:
        topic.publish(5)
        await witness.until_number(5)
        async with stage.join(topic, f"?{spelling}=3&a=1") as subscriber:
            assert (await subscriber.until_number(5)).numbers == [4, 5]
        async with stage.join(topic, f"?a=1&{spelling}=") as newcomer:  # an empty ID counts as none
            topic.publish()
            assert (await newcomer.until_number(6)).numbers == [6]
    assert [asked.target for asked in topic.requests] == [f"{topic.path}?a=1"]


async def test_header_takes_precedence_over_the_query_that_an_event_source_repeats(stage: Stage) -> None:
    topic = stage.topic()
    async with stage.join(topic) as witness:
        topic.publish(5)
        await witness.until_number(5)
        async with stage.join(topic, "?lastEventId=1", last_event_id="4") as subscriber:
            assert (await subscriber.until_number(5)).numbers == [5]
    assert len(topic.requests) == 1


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_catch_up_request_has_the_id_in_header_and_query(stage: Stage, spelling: str) -> None:
    topic = stage.topic("/short")
    async with stage.join(topic) as witness:
        topic.publish(20)
        await witness.until_number(20)
        async with stage.join(topic, f"?{spelling}=3") as subscriber:
            assert (await subscriber.until_number(20)).numbers == list(range(4, 21))
    asked = [(asked.target, asked.header("Last-Event-ID")) for asked in topic.requests]
    assert asked == [(topic.path, None), (f"{topic.path}?{spelling}=3", "3")]


async def test_id_of_a_query_that_a_header_cannot_carry_is_a_gap(stage: Stage) -> None:
    topic = stage.topic()
    async with stage.join(topic, "?lastEventId=1%0D%0AX-Injected:%20yes") as subscriber:
        topic.publish()
        await subscriber.until_number(1)
        [gap] = (await subscriber.until_gap()).gaps
        assert gap["asked"] == "1\r\nX-Injected: yes"
    assert len(topic.requests) == 1
