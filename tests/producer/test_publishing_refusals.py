"""Invalid requests are refused with what was got, what is allowed, and where; none of their events is stored."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from pydantic import SecretStr

from producer.log.event_log import LogFull
from producer.settings import Settings
from producer.topics.event_bodies import MOST_LINES
from tests.kit.producer import Producer, serve
from tests.producer.publishing import NDJSON, SMALL, TEXT, post, problem_of, stored, topic_of

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def producer() -> AsyncIterator[Producer]:
    async with serve(SMALL) as serving:
        yield serving


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    return topic_of(request.node.name)


REFUSED: list[tuple[object, str, str]] = [
    ({}, "data", "is missing"),
    ([], "body", "has no event"),
    ("text", "body", "must be a JSON object"),
    (7, "body", "must be a JSON object"),
    ({"data": 1, "id": "x"}, "id", "is not a member of an event; allowed are data, type and retry"),
    ({"data": 1, "type": 7}, "type", "must be a string"),
    ({"data": 1, "type": ""}, "type", "is empty"),
    ({"data": 1, "type": "a\nb"}, "type", "has a line end or NUL"),
    ({"data": 1, "type": "a\rb"}, "type", "has a line end or NUL"),
    ({"data": 1, "type": "a\0b"}, "type", "has a line end or NUL"),
    ({"data": 1, "type": "x" * 256}, "type", "has more than 255 characters"),
    ({"data": 1, "type": "gap"}, "type", "is reserved for the producer"),
    ({"data": 1, "retry": -1}, "retry", "must be a whole number of milliseconds from 0 to 86400000"),
    ({"data": 1, "retry": 86_400_001}, "retry", "must be a whole number"),
    ({"data": 1, "retry": 1.5}, "retry", "must be a whole number"),
    ({"data": 1, "retry": True}, "retry", "must be a whole number"),
    ({"data": 1, "retry": "1"}, "retry", "must be a whole number"),
    ({"data": "\ud800"}, "body", "has a lone surrogate"),
    ({"data": 1, "type": "\udfff"}, "body", "has a lone surrogate"),
    ([{"data": 1}, {"data": 2, "type": ""}], "1.type", "is empty"),
    ([{"data": 1}, [2]], "1.body", "must be a JSON object"),
]


@pytest.mark.parametrize(("body", "field", "detail"), REFUSED)
async def test_invalid_event_is_422_that_names_the_field_and_nothing_is_stored(
    producer: Producer, topic: str, body: object, field: str, detail: str
) -> None:
    before = producer.log.last
    [error] = problem_of(await post(producer, topic, body), 422)["errors"]
    assert (error["in"], error["field"]) == ("body", field)
    assert detail in error["detail"]
    assert producer.log.last == before


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "is not JSON at character 0"),
        (b'{"data": ', "is not JSON at character 9"),
        (b'{"data": 1} {', "is not JSON at character 12: Extra data"),
        (b'{"data": NaN}', "NaN is not JSON"),
        (b'{"data": -Infinity}', "-Infinity is not JSON"),
        (b'{"data": 1e999}', "cannot be written as JSON"),
        (b'{"data": "\xff"}', "is not UTF-8 at byte 10"),
        (b'{"data": ' + b"[" * 5000, "cannot be read as JSON"),
        (b'{"data": ' + b"9" * 5000 + b"}", "cannot be read as JSON"),
        (b"\xef\xbb\xbf{}", "is not JSON at character 0"),
    ],
)
@pytest.mark.parametrize("kind", ["application/json", "application/x-ndjson"])
async def test_body_that_is_not_json_is_422_and_nothing_is_stored(
    producer: Producer, topic: str, body: bytes, detail: str, kind: str
) -> None:
    before = producer.log.last
    problem = problem_of(await producer.http.post(f"/topics/{topic}/events", content=body, headers={"Content-Type": kind}), 422)
    [error] = problem["errors"]
    assert detail in error["detail"] or (not body and error["detail"] == "has no event")
    assert error.get("line", 1) == 1
    assert producer.log.last == before


async def test_text_that_is_not_utf8_is_422(producer: Producer, topic: str) -> None:
    problem = problem_of(await producer.http.post(f"/topics/{topic}/events", content=b"ab\xff", headers=TEXT), 422)
    assert problem["detail"] == "body: is not UTF-8 at byte 2: invalid start byte"


@pytest.mark.parametrize("data", ["x" * 1001, "七" * 334, ["x" * 997]])
async def test_event_over_the_limit_is_413_with_got_and_allowed_and_at_the_limit_it_passes(
    producer: Producer, topic: str, data: object
) -> None:
    before = producer.log.last
    problem = problem_of(await post(producer, topic, {"data": data}), 413)
    assert (problem["got"], problem["allowed"]) == (1001 if isinstance(data, list) else len(str(data).encode()), 1000)
    problem = problem_of(await post(producer, topic, [{"data": 1}, {"data": data}]), 413)
    assert problem["detail"].startswith("1.data: has ")
    assert producer.log.last == before
    at_the_limit = data[:-1] if isinstance(data, str) else ["x" * 996]
    assert (await post(producer, topic, {"data": at_the_limit})).status_code == 201


@pytest.mark.parametrize(("kind", "allowed"), [("text/plain", 1000), ("application/json", 8000), ("application/x-ndjson", 8000)])
@pytest.mark.parametrize("announced", [True, False])
async def test_body_over_the_limit_is_413_with_got_and_allowed(
    producer: Producer, topic: str, kind: str, allowed: int, announced: bool
) -> None:
    async def in_chunks() -> AsyncIterator[bytes]:
        for _ in range(90):
            yield b"x" * 100

    before = producer.log.last
    body = b"x" * 9000 if announced else in_chunks()
    problem = problem_of(await producer.http.post(f"/topics/{topic}/events", content=body, headers={"Content-Type": kind}), 413)
    assert problem["allowed"] == allowed < problem["got"] <= 9000
    assert producer.log.last == before


async def test_array_with_too_many_events_is_413_that_points_to_lines(producer: Producer, topic: str) -> None:
    before = producer.log.last
    problem = problem_of(await post(producer, topic, [{"data": 1}] * 4), 413)
    assert (problem["got"], problem["allowed"]) == (4, 3)
    assert "application/x-ndjson" in problem["detail"]
    assert producer.log.last == before


async def test_invalid_line_is_named_with_the_events_stored_before_it(producer: Producer, topic: str) -> None:
    good = b'{"data": 1}\n'
    first = problem_of(await producer.http.post(f"/topics/{topic}/events", content=good * 2 + b"{}\n" + good, headers=NDJSON), 422)
    assert first["detail"] == "line 3: data: is missing; any JSON value is allowed"
    assert first["errors"][0]["line"] == 3
    assert "stored" not in first
    assert await stored(producer, topic) == []

    later = problem_of(await producer.http.post(f"/topics/{topic}/events", content=good * 7 + b"\n{}\n", headers=NDJSON), 422)
    ids = [event.id for event in await stored(producer, topic)]
    assert later["detail"].startswith("line 9: data: is missing")
    assert later["detail"].endswith("; the first 6 events of the body are stored already")
    assert later["stored"] == {"count": 6, "first_id": ids[0], "last_id": ids[5]}
    assert len(ids) == 6


@pytest.mark.parametrize("kind", ["", "application/x-www-form-urlencoded", "text/html", "text/plain; charset=latin-1", "application/jsonx"])
async def test_other_media_types_are_415_with_what_is_allowed(producer: Producer, topic: str, kind: str) -> None:
    before = producer.log.last
    answer = await producer.http.post(f"/topics/{topic}/events", content=b'{"data": 1}', headers={"Content-Type": kind} if kind else {})
    assert problem_of(answer, 415)["allowed"] == ["application/json", "text/plain", "application/x-ndjson"]
    assert answer.headers["Accept-Post"] == "application/json, text/plain, application/x-ndjson"
    compressed = await producer.http.post(f"/topics/{topic}/events", content=b"x", headers=TEXT | {"Content-Encoding": "gzip"})
    assert problem_of(compressed, 415)["allowed"] == "identity"
    assert producer.log.last == before


@pytest.mark.parametrize("name", ["a..b", "a.", "*", "a.>", "a%20.%2E", "a%2Fb", "x%", "%00", "x" * 256, "a." * 32 + "a", "a,b"])
async def test_invalid_name_is_422_with_the_reason_for_publish_and_drop(producer: Producer, name: str) -> None:
    before = producer.log.last
    answers = [await post(producer, name, {"data": 1})]
    if "%2F" not in name:  # such a path has another segment when it is decoded, and matches no route
        answers.append(await producer.http.delete(f"/topics/{name}"))
    for answer in answers:
        [error] = problem_of(answer, 422)["errors"]
        assert (error["in"], error["field"]) == ("path", "topic")
    assert producer.log.last == before


@pytest.mark.parametrize("path", ["/topics/a/b/events", "/topics//events/x/y", "/topics/a/events/1/2"])
async def test_path_with_other_segments_is_404(producer: Producer, path: str) -> None:
    assert problem_of(await producer.http.post(path, json={"data": 1}), 404)["detail"].startswith("there is nothing at /topics/")


async def test_wrong_method_is_405_with_all_that_are_allowed(producer: Producer) -> None:
    answer = await producer.http.patch("/topics/a/events")
    assert problem_of(answer, 405)["detail"] == "/topics/a/events does not support PATCH; allowed: POST, GET, HEAD"
    assert answer.headers["Allow"] == "POST, GET, HEAD"


@pytest.mark.parametrize("key", ["", "x" * 256, "ü", "a\tb"])
async def test_invalid_idempotency_key_is_422(producer: Producer, topic: str, key: str) -> None:
    before = producer.log.last
    answer = await producer.http.post(
        f"/topics/{topic}/events", content=b"x", headers=[(b"Content-Type", b"text/plain"), (b"Idempotency-Key", key.encode("latin-1"))]
    )
    assert problem_of(answer, 422)["errors"][0]["field"] == "Idempotency-Key"
    assert producer.log.last == before


async def test_client_without_a_publish_key_can_neither_publish_nor_drop() -> None:
    async with serve(Settings(publish_keys=SecretStr("one,two"))) as producer:
        body, right, wrong = {"data": 1}, {"Authorization": "Bearer two"}, {"Authorization": "Bearer three"}
        assert (await post(producer, "a", body, **right)).status_code == 201
        for headers, status in (({}, 401), (wrong, 403)):
            for answer in (await post(producer, "a", body, **headers), await producer.http.delete("/topics/a", headers=headers)):
                assert "three" not in answer.text
                assert problem_of(answer, status)
                assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert len(await stored(producer, "a")) == 1
        assert (await producer.http.delete("/topics/a", headers=right)).json() == {"topic": "a", "dropped": 1}


async def test_full_log_is_507_and_subscribers_continue(producer: Producer, topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_arguments: object) -> None:
        raise LogFull("scripted")

    await post(producer, topic, {"data": 1})
    with monkeypatch.context() as patch:
        patch.setattr(producer.log, "append", fail)
        for body in ({"data": 2}, [{"data": 2}]):
            answer = await post(producer, topic, body)
            assert problem_of(answer, 507)["detail"].startswith("there is no space left")
            assert answer.headers["Retry-After"] == "30"
        assert await producer.meter("producer_log_writable") == 0
        assert (await producer.http.get("/readyz")).status_code == 200
        assert len(await stored(producer, topic)) == 1
    assert (await post(producer, topic, {"data": 2})).status_code == 201
    assert await producer.meter("producer_log_writable") == 1


async def test_stopping_producer_accepts_no_events(topic: str) -> None:
    async with serve(SMALL) as producer:
        producer.drain.begin()
        for answer in (await post(producer, topic, {"data": 1}), await producer.http.delete(f"/topics/{topic}")):
            assert problem_of(answer, 503)
            assert answer.headers["Retry-After"] == "5"
        assert producer.log.last == 0


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
async def test_event_of_more_lines_than_subscribers_read_is_413(line_end: str) -> None:
    async with serve(Settings()) as producer:
        for lines, status in ((MOST_LINES, 201), (MOST_LINES + 1, 413)):
            data = line_end * (lines - 1)
            answer = await post(producer, "lines", {"data": data})
            assert answer.status_code == status
            assert (await producer.http.post("/topics/lines/events", content=data, headers=TEXT)).status_code == status
        problem = problem_of(answer, 413)
        assert (problem["got"], problem["allowed"]) == (MOST_LINES + 1, MOST_LINES)
        assert problem["detail"].startswith(f"data: has more than {MOST_LINES} lines")
        assert len(await stored(producer, "lines")) == 2
