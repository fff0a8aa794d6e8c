"""Subscribers get every event of their topics, from their start, once and in order."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from eventstream import Event
from producer.log.retention import Retention
from producer.settings import Settings
from tests.kit.producer import Producer, serve
from tests.producer.publishing import post, problem_of, stored
from tests.producer.subscribing import subscribe

PATH = "/topics/a/events"
KEEP_TWO = Retention(max_events=2)


async def publish(producer: Producer, *topics: str) -> list[str]:
    """Publish one event to each topic in turn, with a running number as its data, and return the ids."""
    return [(await post(producer, topic, {"data": str(producer.log.last + 1)})).json()["id"] for topic in topics]


def numbers(events: list[Event]) -> list[int]:
    return [int(event.data) for event in events]


def gap_of(event: Event) -> dict[str, Any]:
    assert event.type == "gap"
    gap: dict[str, Any] = json.loads(event.data)
    return gap


async def replay(producer: Producer, path: str = PATH, **query: Any) -> list[Event]:
    async with subscribe(producer, path, follow="false", **query) as subscriber:
        return await subscriber.rest()


async def test_stream_has_a_retry_line_and_then_the_blocks_as_published() -> None:
    async with serve(Settings(topic_retry_ms=1234)) as producer:
        await post(producer, "a", {"data": "one\ntwo\n", "type": "x"})
        await post(producer, "a", {"data": {"n": 1}, "retry": 9})
        answer = await producer.http.get(PATH, params={"from": "start", "follow": "false"})
        epoch = producer.log.epoch
        blocks = [b"event: x\ndata: one\ndata: two\ndata: \n\n", b'retry: 9\ndata: {"n":1}\n\n']
        body = b"retry: 1234\n" + b"".join(f"id: {epoch}-{number}\n".encode() + block for number, block in enumerate(blocks, 1))
        assert answer.content == body
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert answer.headers["Cache-Control"] == "no-store, no-transform"
        assert answer.headers["X-Accel-Buffering"] == "no"


async def test_subscriber_without_a_start_gets_only_new_events() -> None:
    async with serve(Settings()) as producer:
        await publish(producer, "a")
        async with subscribe(producer, PATH) as subscriber:
            await subscriber.until(b"retry: 3000\n")
            await publish(producer, "a", "b", "a")
            assert numbers(await subscriber.events(2)) == [2, 4]


@pytest.mark.parametrize(
    ("path", "topics", "expected"),
    [
        ("/topics/orders.*/events", [], [2, 4]),
        ("/topics/orders.>/events", [], [2, 3, 4]),
        ("/topics/orders.%3E/events", [], [2, 3, 4]),
        ("/topics/>/events", [], [1, 2, 3, 4, 5]),
        ("/topics/%2A/events", [], [1, 5]),
        ("/events", ["orders.*", "news"], [2, 4, 5]),
        ("/events", ["orders.eu", "orders.us", "nothing"], [2, 4]),
        ("/events", [">"], [1, 2, 3, 4, 5]),
    ],
)
async def test_patterns_select_topics_in_the_same_order_for_replay_and_live(path: str, topics: list[str], expected: list[int]) -> None:
    async with serve(Settings()) as producer:
        published = ["orders", "orders.eu", "orders.eu.de", "orders.us", "news"]
        async with subscribe(producer, path, topic=topics) as live:
            await live.until(b"retry: 3000\n")
            await publish(producer, *published)
            assert numbers(await live.events(len(expected))) == expected
        assert numbers(await replay(producer, path, from_="start", topic=topics)) == expected


async def test_resuming_by_header_takes_precedence_over_the_query_and_that_over_the_rest() -> None:
    async with serve(Settings()) as producer:
        ids = await publish(producer, *"aaaa")
        assert numbers(await replay(producer, last_event_id=ids[2])) == [4]
        assert numbers(await replay(producer, last_event_id_=ids[1], from_="start")) == [3, 4]
        assert numbers(await replay(producer, last_event_id=ids[2], last_event_id_=ids[0])) == [4]
        assert numbers(await replay(producer, lastEventId=ids[1], from_="start")) == [3, 4]
        assert numbers(await replay(producer, **{"Last-Event-ID": ids[2]})) == [4]
        assert numbers(await replay(producer, from_="start")) == [1, 2, 3, 4]
        assert await replay(producer) == []


async def test_reconnecting_subscriber_resumes_and_stays_connected() -> None:
    async with serve(Settings()) as producer:
        ids = await publish(producer, *"aba")
        async with subscribe(producer, PATH, last_event_id=ids[0]) as subscriber:
            assert numbers([await subscriber.event()]) == [3]
            await publish(producer, "a")
            assert numbers([await subscriber.event()]) == [4]


async def test_since_accepts_a_time_or_a_duration() -> None:
    async with serve(Settings()) as producer:
        await publish(producer, "a")
        await asyncio.sleep(0.05)  # the log's clock counts milliseconds
        moment = datetime.now(UTC)
        await publish(producer, "a", "a")
        times = [moment.isoformat(), moment.astimezone(datetime.now().astimezone().tzinfo).isoformat(), moment.isoformat()[:-6] + "Z"]
        for since in [*times, moment.isoformat().replace("+", " ")]:  # a `+` that the client did not escape
            assert numbers(await replay(producer, since=since)) == [2, 3]
        assert numbers(await replay(producer, since="15m")) == [1, 2, 3]
        assert numbers(await replay(producer, since="1d2h3m4s5ms")) == [1, 2, 3]
        assert await replay(producer, since=(moment + timedelta(hours=1)).isoformat()) == []
        await asyncio.sleep(0.05)  # longer than 1 ms
        assert await replay(producer, since="1ms") == []


@pytest.mark.parametrize("since", ["soon", "15", "m", "2026-13-01", "1h15", "-5m", "99999999d"])
async def test_invalid_since_is_422_with_what_is_allowed(since: str) -> None:
    async with serve(Settings()) as producer:
        answer = await producer.http.get(PATH, params={"since": since, "follow": "false"})
        if since == "99999999d":  # long ago, but a duration
            assert answer.status_code == 200
            return
        [error] = problem_of(answer, 422)["errors"]
        assert (error["field"], error["got"]) == ("since", since)
        assert "2026-03-01T12:00:00Z" in error["detail"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"from": "end"}, "from"),
        ({"limit": "0"}, "limit"),
        ({"follow": "x"}, "follow"),
        ({"gap": "x"}, "gap"),
        ({"from": "start", "since": "1m"}, "since"),
    ],
)
async def test_invalid_parameter_is_422(query: dict[str, str], field: str) -> None:
    async with serve(Settings()) as producer:
        for path in (PATH, "/events"):
            [error] = problem_of(await producer.http.get(path, params={"topic": "a"} | query), 422)["errors"]
            assert error["field"] == field


@pytest.mark.parametrize(
    "path",
    ["/topics/a*/events", "/topics/>.a/events", "/topics/a..b/events", "/topics/a%2Fb/events", "/events?topic=a&topic=b%20c", "/events"],
)
async def test_invalid_pattern_is_422_that_names_the_topic(path: str) -> None:
    async with serve(Settings()) as producer:
        [error] = problem_of(await producer.http.get(path), 422)["errors"]
        assert error["field"] == "topic"


async def test_limit_ends_the_stream_and_a_reconnection_resumes() -> None:
    async with serve(Settings()) as producer:
        await publish(producer, *"aaa")
        async with subscribe(producer, PATH, from_="start", limit=2) as subscriber:
            events = await subscriber.rest()
        async with subscribe(producer, PATH, last_event_id=events[-1].last_event_id, limit=2) as subscriber:
            assert numbers([await subscriber.event()]) == [3]
            await publish(producer, "a", "a")
            assert numbers(await subscriber.rest()) == [4]
        assert numbers(events) == [1, 2]


async def test_replay_with_nothing_left_is_204_and_stops_an_event_source() -> None:
    async with serve(Settings()) as producer:
        ids = await publish(producer, *"aab")
        for last in ids[1:]:
            answer = await producer.http.get(PATH, params={"follow": "false"}, headers={"Last-Event-ID": last})
            assert (answer.status_code, answer.content) == (204, b"")
        assert numbers(await replay(producer, last_event_id=ids[0])) == [2]
        assert [event.type for event in await replay(producer, last_event_id="other-1")] == ["gap", "message", "message"]
        for gap, status in (("true", 200), ("false", 204)):
            query = {"follow": "false", "last_event_id": "other-1", "gap": gap}
            assert (await producer.http.get("/topics/nothing/events", params=query)).status_code == status


async def test_head_opens_no_stream() -> None:
    async with serve(Settings()) as producer:
        for path in (PATH, "/events?topic=a"):
            answer = await producer.http.head(path)
            assert (answer.status_code, answer.content) == (200, b"")
            assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert await producer.meter("producer_streams_open") == 0


@pytest.mark.parametrize(
    ("asked", "reason"), [("other-1", "unknown-epoch"), ("nonsense", "malformed-id"), ("%", "malformed-id"), ("EPOCH-99", "beyond-end")]
)
async def test_id_that_is_not_of_this_log_is_a_gap_followed_by_all_events(asked: str, reason: str) -> None:
    async with serve(Settings()) as producer:
        ids = await publish(producer, *"bab")
        asked = asked.replace("EPOCH", producer.log.epoch)
        gap, event = await replay(producer, last_event_id=asked)
        assert gap_of(gap) == {"asked": asked, "first_retained": ids[1], "reason": reason}
        assert event.id == ids[1]
        assert gap.id is not None
        assert numbers(await replay(producer, last_event_id=gap.id)) == [2]  # resuming from the gap returns the same events, and no gap
        assert numbers(await replay(producer, last_event_id=asked, gap="false")) == [2]
        assert await producer.meter("producer_gaps_total") == 2


async def test_event_that_retention_removed_is_a_gap() -> None:
    async with serve(Settings(), retention=KEEP_TWO) as producer:
        ids = await publish(producer, *"aaaaa")
        while await producer.log.trim():
            pass
        gap, *events = await replay(producer, last_event_id=ids[0])
        assert gap_of(gap) == {"asked": ids[0], "first_retained": ids[3], "reason": "not-retained"}
        assert numbers(events) == [4, 5]
        gap, *events = await replay(producer, since="15m")
        assert gap_of(gap) == {"asked": "15m", "first_retained": ids[3], "reason": "not-retained"}
        assert numbers(await replay(producer, from_="start")) == numbers(await replay(producer, last_event_id=ids[2])) == [4, 5]
        looked_at = [await producer.http.get(f"/topics/a/events/{event_id}") for event_id in (ids[0], ids[4])]
        assert [answer.status_code for answer in looked_at] == [410, 200]


async def test_dropped_topic_is_gone_for_replay_and_a_gap_for_subscribers_behind_it() -> None:
    async with serve(Settings()) as producer:
        ids = await publish(producer, *"aab")
        async with subscribe(producer, "/events", topic=["a", "b"], last_event_id=ids[0]) as live:
            assert numbers(await live.events(2)) == [2, 3]
            assert (await producer.http.delete("/topics/a")).json() == {"topic": "a", "dropped": 2}
            await publish(producer, "a")
            assert numbers([await live.event()]) == [4]
        gap, *events = await replay(producer, "/events", topic=["a", "b"], last_event_id=ids[0])
        assert gap_of(gap)["first_retained"] == ids[2]
        assert numbers(events) == [3, 4]
        assert numbers(await stored(producer, "a")) == [4]
        missing = problem_of(await producer.http.delete("/topics/c"), 404)
        assert missing["detail"] == "there is no topic c; GET /topics lists what there is"


async def test_events_can_be_read_one_by_one() -> None:
    async with serve(Settings()) as producer:
        ids = await publish(producer, "a", "b")
        shown = (await producer.http.get(f"/topics/a/events/{ids[0]}")).json()
        assert shown == {"id": ids[0], "topic": "a", "type": None, "data": "1", "retry": None}
        for event_id in (ids[1], "other-1", "x", f"{producer.log.epoch}-3", f"{producer.log.epoch}-0"):
            problem_of(await producer.http.get(f"/topics/a/events/{event_id}"), 404)
        problem_of(await producer.http.get("/topics/a.*/events/x"), 422)


async def test_topics_are_listed_page_by_page_with_events_and_subscribers() -> None:
    async with serve(Settings()) as producer:
        ids = await publish(producer, "b", "a", "c.d", "a")
        async with subscribe(producer, "/topics/*/events"), subscribe(producer, "/events", topic=["a", "c.d"]) as last:
            await last.until(b"retry: 3000\n")
            page = (await producer.http.get("/topics", params={"limit": 2})).json()
            assert [topic["topic"] for topic in page["topics"]] == ["a", "b"]
            topic = producer.log.topics["a"]
            listed = {"topic": "a", "count": 2, "first_id": ids[1], "last_id": ids[3], "bytes": topic.bytes, "subscribers": 2}
            assert page["topics"][0] == listed
            rest = (await producer.http.get(page["next"])).json()
            assert [(topic["topic"], topic["subscribers"]) for topic in rest["topics"]] == [("c.d", 1)]
            assert rest["next"] is None
        await producer.http.delete("/topics/a")
        assert [topic["topic"] for topic in (await producer.http.get("/topics")).json()["topics"]] == ["b", "c.d"]
