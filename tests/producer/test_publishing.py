"""Published events are stored once, and the publisher gets their ids."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from eventstream import Event
from producer.settings import Settings
from tests.kit.producer import Producer, serve
from tests.kit.waiting import GUARD_SECONDS
from tests.producer.publishing import NDJSON, SMALL, post, problem_of, stored, topic_of

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def producer() -> AsyncIterator[Producer]:
    async with serve(SMALL) as serving:
        yield serving


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    return topic_of(request.node.name)


async def test_event_is_answered_with_its_id_and_url(producer: Producer, topic: str) -> None:
    answer = await post(producer, topic, {"data": "first\nsecond", "type": "order", "retry": 7})
    assert answer.status_code == 201
    event_id = answer.json()["id"]
    assert answer.json() == {"id": f"{producer.log.epoch}-{producer.log.last}"}
    assert answer.headers["Location"] == f"/topics/{topic}/events/{event_id}"
    shown = (await producer.http.get(answer.headers["Location"])).json()
    assert shown == {"id": event_id, "topic": topic, "type": "order", "data": "first\nsecond", "retry": 7}
    assert await stored(producer, topic) == [Event("first\nsecond", "order", event_id, event_id, 7)]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("", ""),
        ("七\r\n夕\r!", "七\n夕\n!"),
        ("\0", "\0"),
        (None, "null"),
        (True, "true"),
        (7, "7"),
        (1.5, "1.5"),
        (10**30, "1" + "0" * 30),
        ({"a": [1, "é"]}, '{"a":[1,"é"]}'),
        ([], "[]"),
    ],
)
async def test_string_is_sent_unchanged_and_any_other_value_as_json(producer: Producer, topic: str, data: object, text: str) -> None:
    assert (await post(producer, topic, {"data": data, "type": None, "retry": None})).status_code == 201
    [event] = await stored(producer, topic)
    assert (event.data, event.type, event.retry) == (text, "message", None)


@pytest.mark.parametrize("kind", ["text/plain", "text/plain; charset=utf-8", 'Text/Plain;charset="UTF-8"'])
async def test_text_is_the_data(producer: Producer, topic: str, kind: str) -> None:
    body = "eins\nzwei 七 {".encode()
    answer = await producer.http.post(f"/topics/{topic}/events", content=body, headers={"Content-Type": kind})
    assert answer.status_code == 201
    assert [event.data for event in await stored(producer, topic)] == [body.decode()]


async def test_array_is_one_batch_with_ids_in_order(producer: Producer, topic: str) -> None:
    answer = await post(producer, topic, [{"data": number} for number in range(3)])
    assert answer.status_code == 201
    ids = [event.id for event in await stored(producer, topic)]
    assert answer.json() == {"count": 3, "first_id": ids[0], "last_id": ids[2], "ids": ids}


@pytest.mark.parametrize("separator", [b"\n", b"\r\n", b"\n\n", b"\n \n"])
@pytest.mark.parametrize("count", [1, 3, 4, 10])
async def test_lines_are_batches_in_order_wherever_the_body_is_cut(producer: Producer, topic: str, separator: bytes, count: int) -> None:
    body = separator.join(json.dumps({"data": f"数{number}"}, ensure_ascii=False).encode() for number in range(count))
    for size in (1, 7, len(body)):
        for end in (b"", separator):

            async def chunks(size: int = size, whole: bytes = body + end) -> AsyncIterator[bytes]:
                for start in range(0, len(whole), size):
                    yield whole[start : start + size]

            answer = await producer.http.post(f"/topics/{topic}.{size}.{len(end)}/events", content=chunks(), headers=NDJSON)
            events = await stored(producer, f"{topic}.{size}.{len(end)}")
            ids = [event.id for event in events]
            assert [event.data for event in events] == [f"数{number}" for number in range(count)]
            expected = {"count": count, "first_id": ids[0], "last_id": ids[-1]} | ({"ids": ids} if count <= 3 else {})
            assert (answer.status_code, answer.json()) == (201, expected)


async def test_lines_are_split_into_batches_by_bytes_too(producer: Producer, topic: str) -> None:
    body = b"".join(json.dumps({"data": "x" * 900, "type": "y" * 10}).encode().replace(b" ", b" " * 1800) + b"\n" for _ in range(3))
    answer = await producer.http.post(f"/topics/{topic}/events", content=body, headers=NDJSON)
    assert answer.json()["count"] == 3
    assert "ids" not in answer.json()  # two lines of 4.5 kB are more than 8,000 bytes


async def test_spellings_of_a_name_are_one_topic(producer: Producer) -> None:
    for name in ("%63af%c3%a9.x", "caf%C3%A9.x"):
        answer = await post(producer, name, {"data": name})
        assert answer.headers["Location"].startswith("/topics/caf%C3%A9.x/events/")
    assert len(await stored(producer, "caf%c3%A9.%78")) == 2


async def test_key_makes_publishing_idempotent(producer: Producer, topic: str) -> None:
    bodies: list[object] = [{"data": 1}, [{"data": 1}, {"data": 2}]]
    for number, body in enumerate(bodies):
        before = producer.log.last
        first = await post(producer, topic, body, **{"Idempotency-Key": f"key {number}"})
        again = await post(producer, topic, body, **{"Idempotency-Key": f"key {number}"})
        assert (first.status_code, again.status_code) == (201, 200)
        assert first.json() == again.json()
        assert producer.log.last == before + (2 if number else 1)
        changed = problem_of(await post(producer, topic, {"data": 3}, **{"Idempotency-Key": f"key {number}"}), 422)
        assert changed["errors"][0]["field"] == "Idempotency-Key"
        assert producer.log.last == before + (2 if number else 1)
    elsewhere = await post(producer, topic + ".other", {"data": 3}, **{"Idempotency-Key": "key 0"})
    assert elsewhere.status_code == 201


async def test_one_hundred_concurrent_requests_with_one_key_store_one_event(producer: Producer, topic: str) -> None:
    before = producer.log.last
    answers = await asyncio.gather(*(post(producer, topic, {"data": 1}, **{"Idempotency-Key": "k"}) for _ in range(100)))
    assert sorted(answer.status_code for answer in answers) == [200] * 99 + [201]
    assert len({answer.text for answer in answers}) == 1
    assert producer.log.last == before + 1


async def test_lines_that_failed_in_the_middle_resume_with_the_same_key(producer: Producer, topic: str) -> None:
    lines = [b'{"data": %d}\n' % number for number in range(8)]
    headers = NDJSON | {"Idempotency-Key": "k"}
    broken = await producer.http.post(f"/topics/{topic}/events", content=b"".join(lines[:7]) + b"{", headers=headers)
    assert problem_of(broken, 422)["stored"]["count"] == 6
    whole = await producer.http.post(f"/topics/{topic}/events", content=b"".join(lines), headers=headers)
    again = await producer.http.post(f"/topics/{topic}/events", content=b"".join(lines), headers=headers)
    assert (whole.status_code, again.status_code) == (201, 200)
    assert whole.json() == again.json()
    assert [event.data for event in await stored(producer, topic)] == [str(number) for number in range(8)]
    shorter = await producer.http.post(f"/topics/{topic}/events", content=b"".join(lines[:3]), headers=headers)
    assert problem_of(shorter, 422)["errors"][0]["field"] == "Idempotency-Key"


async def test_lines_with_the_key_of_another_body_are_refused(producer: Producer, topic: str) -> None:
    assert (await post(producer, topic, {"data": 1}, **{"Idempotency-Key": "k"})).status_code == 201
    other = await producer.http.post(f"/topics/{topic}/events", content=b'{"data": 2}', headers=NDJSON | {"Idempotency-Key": "k"})
    assert problem_of(other, 422)["errors"][0]["field"] == "Idempotency-Key"


async def test_keys_survive_a_restart(tmp_path: Path) -> None:
    settings = Settings(log_dir=tmp_path)
    answers = []
    for _ in range(2):
        async with serve(settings) as producer:
            answers.append(await post(producer, "a", {"data": 1}, **{"Idempotency-Key": "k"}))
            assert producer.log.last == 1
    assert [answer.status_code for answer in answers] == [201, 200]
    assert answers[0].json() == answers[1].json()


async def test_web_page_may_publish_from_an_origin_that_is_allowed(producer: Producer, topic: str) -> None:
    asked = {"Access-Control-Request-Method": "DELETE", "Access-Control-Request-Headers": "authorization,idempotency-key,last-event-id"}
    preflight = await producer.http.options(f"/topics/{topic}/events", headers=asked | {"Origin": "http://a.example"})
    assert preflight.status_code == 200
    assert "DELETE" in preflight.headers["Access-Control-Allow-Methods"]
    assert {"authorization", "idempotency-key", "last-event-id"} <= set(
        preflight.headers["Access-Control-Allow-Headers"].lower().split(",")
    )
    answer = await post(producer, topic, {"data": 1}, Origin="http://a.example")
    assert answer.status_code == 201
    assert (answer.headers["Access-Control-Allow-Origin"], answer.headers["Access-Control-Expose-Headers"]) == ("*", "Location")
    refused = await post(producer, topic, {}, Origin="http://a.example")
    assert problem_of(refused, 422)["errors"][0]["field"] == "data"
    assert refused.headers["Access-Control-Allow-Origin"] == "*"


async def test_publisher_that_leaves_in_the_middle_has_stored_whole_batches_only() -> None:
    async with serve(SMALL) as producer:
        for kind, expected in (("application/json", 0), ("text/plain", 0), ("application/x-ndjson", 3)):
            _, writer = await asyncio.open_connection("127.0.0.1", producer.port)
            head = f"POST /topics/a/events HTTP/1.1\r\nHost: p\r\nContent-Type: {kind}\r\nContent-Length: 100\r\n\r\n"
            writer.write(head.encode() + b'{"data": 1}\n' * 5)
            await writer.drain()
            async with asyncio.timeout(GUARD_SECONDS):
                while len(await stored(producer, "a")) < expected:
                    await asyncio.sleep(0.01)
            writer.close()
            await producer.has_no_other_connection()
            assert len(await stored(producer, "a")) == expected


async def test_metrics_count_what_was_published() -> None:
    async with serve(SMALL) as producer:
        for _ in range(2):
            await post(producer, "a", [{"data": 1}, {"data": 2}], **{"Idempotency-Key": "k"})
        await post(producer, "b", {"data": 3})
        lines = (await producer.http.get("/metrics")).text.splitlines()
        for line in (
            'producer_published_events_total{result="stored"} 3.0',
            'producer_published_events_total{result="repeated"} 2.0',
            "producer_published_bytes_total 27.0",
            "producer_append_seconds_count 3.0",
            "producer_log_writable 1.0",
            "producer_log_events 3.0",
            "producer_log_topics 2.0",
            "producer_log_first_offset 1.0",
            "producer_log_last_offset 3.0",
            f"producer_log_bytes {float(sum(topic.bytes for topic in producer.log.topics.values()))}",
        ):
            assert line in lines
