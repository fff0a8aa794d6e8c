from collections.abc import AsyncIterator
from urllib.parse import urlencode

import pytest
import pytest_asyncio

from producer.settings import Settings
from tests.kit.producer import Producer, events_of, serve

FAST = Settings(interval_ms=0, text="streams")
NUMBERED = {"ids": "true", "repeat": "2"}
LAST = 14


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def producer() -> AsyncIterator[Producer]:
    async with serve(FAST) as serving:
        yield serving


async def test_events_have_no_ids_and_last_event_id_is_ignored_without_ids(producer: Producer) -> None:
    answer = await producer.http.get("/", headers={"Last-Event-ID": "3"})
    assert [event.id for event in events_of(answer.content)] == [None] * 7


@pytest.mark.parametrize("path", ["/", "/plain"])
async def test_stream_cut_after_any_event_resumes_at_another_producer(producer: Producer, path: str) -> None:
    whole = events_of((await producer.http.get(path, params=NUMBERED)).content)
    assert [event.id for event in whole] == [str(number) for number in range(1, LAST + 1)]
    async with serve(FAST) as restarted:
        for seen in range(1, LAST):
            answer = await restarted.http.get(path, params=NUMBERED, headers={"Last-Event-ID": str(seen)})
            rest = events_of(answer.content)
            assert [(event.id, event.data) for event in rest] == [(event.id, event.data) for event in whole[seen:]]


async def test_posted_message_is_resumed_by_posting_it_again(producer: Producer) -> None:
    for path in ("/sse", "/plain"):
        answer = await producer.http.post(path, json={"message": "abc"}, params={"ids": "1"}, headers={"Last-Event-ID": "2"})
        assert [(event.id, event.data) for event in events_of(answer.content)] == [("3", "c")]


async def test_last_event_id_may_come_in_the_query_and_the_header_takes_precedence(producer: Producer) -> None:
    by_query = await producer.http.get("/", params=NUMBERED | {"last_event_id": "12"})
    by_both = await producer.http.get("/", params=NUMBERED | {"last_event_id": "12"}, headers={"Last-Event-ID": "13"})
    empty = await producer.http.get("/", params=NUMBERED | {"last_event_id": ""}, headers={"Last-Event-ID": ""})
    assert [event.id for event in events_of(by_query.content)] == ["13", "14"]
    assert [event.id for event in events_of(by_both.content)] == ["14"]
    assert len(events_of(empty.content)) == LAST


@pytest.mark.parametrize("name", ["last_event_id", "lastEventId", "lastEventID", "Last-Event-ID"])
async def test_last_event_id_in_the_query_may_have_the_names_of_polyfills_and_mercure(producer: Producer, name: str) -> None:
    resumed = await producer.http.get("/", params=NUMBERED | {name: "12"})
    by_both = await producer.http.get("/", params=NUMBERED | {name: "12"}, headers={"Last-Event-ID": "13"})
    assert [event.id for event in events_of(resumed.content)] == ["13", "14"]
    assert [event.id for event in events_of(by_both.content)] == ["14"]


async def test_last_non_empty_one_of_several_parameters_counts(producer: Producer) -> None:
    """The gateway reads them the same way."""
    for query in ("lastEventId=3&lastEventId=12", "lastEventId=12&lastEventId=", "last_event_id=12&last_event_id=&lastEventId=3"):
        answer = await producer.http.get(f"/?{urlencode(NUMBERED)}&{query}")
        assert [event.id for event in events_of(answer.content)] == ["13", "14"]


async def test_last_of_several_last_event_id_fields_counts(producer: Producer) -> None:
    fields = [("Last-Event-ID", "3"), ("last-event-id", "7"), ("Last-Event-ID", "12")]
    answer = await producer.http.get("/", params=NUMBERED, headers=fields)
    assert [event.id for event in events_of(answer.content)] == ["13", "14"]


@pytest.mark.parametrize("path", ["/", "/plain"])
async def test_completed_stream_is_204_so_that_an_event_source_stops(producer: Producer, path: str) -> None:
    answer = await producer.http.get(path, params=NUMBERED, headers={"Last-Event-ID": str(LAST)})
    assert (answer.status_code, answer.content) == (204, b"")


@pytest.mark.parametrize("path", ["/", "/plain"])
@pytest.mark.parametrize("garbage", ["15", "-1", "1.0", "3x", "٣", "9" * 5000, "stream-3"])
async def test_id_of_another_stream_is_refused(producer: Producer, path: str, garbage: str) -> None:
    answer = await producer.http.get(path, params=NUMBERED, headers={b"Last-Event-ID": garbage.encode()})
    assert answer.status_code == 400
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["allowed"] == "1 to 14"
    assert len(answer.content) < 1000
