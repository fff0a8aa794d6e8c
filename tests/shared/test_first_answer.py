"""The answer to subscribers when the upstream's first answer is not an event stream."""

import asyncio
import json

import pytest

from tests.kit.downstream import Downstream, End
from tests.shared.conftest import Stage, StartStage
from tests.shared.subscribing import ACCEPT, Subscriber
from tests.shared.upstream import Topic

pytestmark = pytest.mark.asyncio(loop_scope="session")

GONE = b"HTTP/1.1 410 Gone\r\nContent-Type: text/plain\r\nX-Reason: moved\r\nContent-Length: 8\r\n\r\nit moved"
PAGE = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\n<p>hi"


async def answers(stage: Stage, topic: Topic, count: int) -> list[tuple[int, bytes]]:
    """Return the answers to simultaneous subscribers."""
    subscribers = [stage.subscriber(topic) for _ in range(count)]
    try:
        return await asyncio.gather(*(subscriber.refused() for subscriber in subscribers))
    finally:
        for subscriber in subscribers:
            subscriber.leave()


@pytest.mark.parametrize(("answer", "status", "body"), [(GONE, 410, b"it moved"), (PAGE, 200, b"<p>hi")])
async def test_answer_other_than_an_event_stream_is_passed_to_each_unchanged(stage: Stage, answer: bytes, status: int, body: bytes) -> None:
    topic = stage.topic()
    topic.answer = answer
    assert {*await answers(stage, topic, 5)} == {(status, body)}
    async with stage.subscriber(topic) as subscriber:
        await subscriber.refused()
        fields = subscriber.answer.head
        assert fields.value("Content-Type") == ("text/plain" if status == 410 else "text/html")
        assert fields.value("X-Reason") == ("moved" if status == 410 else None)


async def test_error_with_the_content_type_of_a_stream_is_passed_to_each_with_its_body(stage: Stage) -> None:
    topic = stage.topic("/impatient")
    body = b'{"error": {"code": 401, "message": "bad key"}}'
    topic.answer = b"HTTP/1.1 401 Unauthorized\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    assert {*await answers(stage, topic, 3)} == {(401, body)}


async def test_stream_in_an_unknown_coding_is_passed_to_each_unchanged(stage: Stage) -> None:
    topic = stage.topic("/impatient")
    topic.answer = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: rot13\r\nContent-Length: 11\r\n\r\nqngn: 1\n\nqn"
    )
    assert {*await answers(stage, topic, 3)} == {(200, b"qngn: 1\n\nqn")}


async def test_204_is_passed_to_each(stage: Stage) -> None:
    topic = stage.topic()
    topic.answer = b"HTTP/1.1 204 No Content\r\n\r\n"
    assert {*await answers(stage, topic, 5)} == {(204, b"")}


async def test_503_is_passed_unchanged_and_causes_no_back_off(stage: Stage) -> None:
    topic = stage.topic("/impatient")
    topic.answer = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nbusy"
    async with stage.subscriber(topic) as subscriber:
        assert await subscriber.refused() == (503, b"busy")
        assert subscriber.answer.head.value("Retry-After") == "7"
        topic.answer = None
        await subscriber.join()
        blocks = topic.publish()
        assert (await subscriber.until_number(1)).events == blocks


async def test_upstream_that_refuses_connections_is_a_502(stage: Stage) -> None:
    topic = stage.topic("/impatient")
    async with stage.upstream.away():
        for status, body in await answers(stage, topic, 3):
            assert status == 502
            assert json.loads(body)["status"] == status
    async with stage.join(topic) as subscriber:  # and that causes no back-off
        blocks = topic.publish()
        assert (await subscriber.until_number(1)).events == blocks


async def test_upstream_that_does_not_answer_in_time_is_a_504(start_stage: StartStage) -> None:
    async with start_stage({"first_byte_timeout_seconds": 0.4}) as stage:
        topic = stage.topic("")
        topic.speaking.clear()
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for status, body in await answers(stage, topic, 3):
            assert status == 504
            assert json.loads(body)["status"] == status
        assert loop.time() - begun < 20  # without that setting it is a minute
        topic.speaking.set()


async def test_head_is_answered_like_get_without_a_body(stage: Stage) -> None:
    topic = stage.topic()
    async with Downstream(stage.gateway.port) as downstream:
        for _ in range(2):  # the connection stays usable
            await downstream.ask(topic.path, "HEAD", [ACCEPT])
            answer = await downstream.answer("HEAD")
            assert answer.head.status == 200
            assert answer.head.value("Content-Type") == "text/event-stream"
            assert answer.end is End.COMPLETE
    async with stage.join(topic) as subscriber:
        blocks = topic.publish()
        assert (await subscriber.until_number(1)).events == blocks


async def test_head_of_the_response_is_that_of_an_event_stream(stage: Stage) -> None:
    topic = stage.topic("/everybody")
    async with stage.join(topic) as first, stage.join(topic) as second:
        for subscriber in (first, second):
            head = subscriber.answer.head
            assert head.value("Content-Type") == "text/event-stream"
            assert head.value("Cache-Control") == "no-cache, no-transform"
            assert head.value("X-Accel-Buffering") == "no"
            assert head.value("Access-Control-Allow-Origin") == "*"
            assert head.value("Transfer-Encoding") == "chunked"


async def test_unknown_path_is_the_404_of_the_upstream(stage: Stage) -> None:
    async with Subscriber(stage.gateway.port, "/live/unknown-topic") as subscriber:
        assert await subscriber.refused() == (404, b"no topic")
