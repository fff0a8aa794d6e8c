"""Common servers behind the gateway: each fact for each of them, over plain HTTP and over TLS.

The first run builds the servers that are not in Python, with downloads. Servers in Rust run in `make soak` only.
"""

import pytest

from tests.real_servers.asking import MODES, Stream, Topic
from tests.real_servers.servers import names
from tests.resumable.answers import unstamped

pytestmark = pytest.mark.timeout(1800)

MANY, LARGE = 1000, 3000
"""Events of a stream of some 3 MB, and their size."""

modes = pytest.mark.parametrize("mode", MODES)


async def body(stream: Stream, mode: str, direct: bytes) -> bytes:
    """Read as many bytes as the direct answer had: a shared stream continues when its upstream has ended."""
    if mode != "shared":
        return unstamped(await stream.to_end())
    while len(stream.body) < len(direct):
        assert await stream.read()
    return bytes(stream.body)


@modes
@pytest.mark.parametrize(("count", "size"), [(3, 1), (MANY, LARGE)], ids=["small", "large"])
async def test_bytes_are_those_of_a_direct_answer(topic: Topic, mode: str, count: int, size: int) -> None:
    async with topic.open("", count, count, size=size) as stream:
        direct = await stream.to_end()
        assert stream.numbers() == list(range(1, count + 1))
    async with topic.open(mode, count, count, size=size) as stream:
        assert await body(stream, mode, direct) == direct


@modes
@pytest.mark.parametrize("server", names(lambda kind: kind.delimits_by_close), indirect=True)
async def test_bytes_of_a_body_that_the_end_of_the_connection_delimits(topic: Topic, mode: str) -> None:
    async with topic.open("", MANY, MANY, size=LARGE, close=True) as stream:
        assert "Transfer-Encoding" not in stream.answer.headers
        direct = await stream.to_end()
        assert stream.numbers() == list(range(1, MANY + 1))
    async with topic.open(mode, MANY, MANY, size=LARGE, close=True) as stream:
        assert await body(stream, mode, direct) == direct


@modes
async def test_event_arrives_before_the_next_is_made(topic: Topic, mode: str) -> None:
    async with topic.open(mode, 2, 1) as stream:
        assert await stream.until(1) == [1]
        await topic.go()
        assert await stream.until(2) == [1, 2]


@modes
async def test_writing_server_notices_that_a_client_of_the_gateway_left(topic: Topic, mode: str) -> None:
    await notices(topic, mode, tick=20)


@modes
@pytest.mark.parametrize("server", names(lambda kind: kind.watches), indirect=True)
async def test_silent_server_notices_that_a_client_of_the_gateway_left(topic: Topic, mode: str) -> None:
    await notices(topic, mode, tick=0)


async def notices(topic: Topic, mode: str, tick: int) -> None:
    """Leave a stream directly and through the gateway, and compare how long the server takes to notice."""
    async with topic.open("", 1_000_000, 1, tick=tick) as stream:
        await stream.until(1)
    direct = await topic.until_left(1)
    async with topic.open(mode, 1_000_000, 1, tick=tick) as stream:
        await stream.until(1)
    assert await topic.until_left(2) < 10 * direct + 5


@modes
async def test_refusal_that_is_typed_as_an_event_stream_has_its_body(topic: Topic, mode: str) -> None:
    async with topic.ask("refusal", "") as stream:
        status, direct = stream.answer.status_code, await stream.to_end()
    async with topic.ask("refusal", mode) as stream:
        assert (stream.answer.status_code, await stream.to_end()) == (status, direct)
    assert (status, direct) == (429, b'{"error": {"message": "too many requests"}}')


@modes
async def test_head_gets_the_direct_answer_and_the_next_request_its_own(topic: Topic, mode: str) -> None:
    seen = []
    for through in ("", mode):
        async with topic.ask("events?key=head&count=1&burst=1&size=1&tick=0", through, "HEAD") as stream:
            assert await stream.to_end() == b""
            seen.append((stream.answer.status_code, stream.answer.headers.get("Content-Type")))
    assert seen[0] == seen[1]
    async with topic.open(mode, 2, 2) as stream:
        assert await stream.until(2) == [1, 2]


async def test_two_subscribers_share_one_upstream_request_and_resume_by_id(topic: Topic) -> None:
    async with topic.open("shared", 1000, 1) as one:
        await one.until(1)
        async with topic.open("shared", 1000, 1) as other:
            for number in (2, 3):
                await topic.go()
                assert await one.until(number) == list(range(1, number + 1))
                assert await other.until(number) == list(range(2, number + 1))
        async with topic.open("shared", 1000, 1, last="2") as other:
            await topic.go()
            assert await other.until(4) == [3, 4]
            assert await one.until(4) == [1, 2, 3, 4]
        assert await topic.count("opened") == 1


async def test_kept_answer_is_resumed_by_the_same_post_with_the_id_of_the_server(topic: Topic) -> None:
    async with topic.open("resumable", 3, 1, authorization="Bearer one") as stream:
        await stream.until(1)
        async with topic.open("resumable", 3, 1, last="1", authorization="Bearer one") as other:
            await topic.go()
            await topic.go()
            await other.to_end()
            assert other.numbers() == [2, 3]
            await stream.to_end()
            assert stream.numbers() == [1, 2, 3]
    assert await topic.count("opened") == 1


async def test_killed_server_cuts_answers_and_shared_streams_continue_when_it_is_back(topic: Topic) -> None:
    async with (
        topic.open("direct", 1_000_000, 1, tick=5) as direct,
        topic.open("resumable", 1_000_000, 1, tick=5) as kept,
        topic.open("shared", 1_000_000, 1, tick=5) as shared,
    ):
        for stream in (direct, kept, shared):
            await stream.until(3)
        topic.server.kill()
        for stream in (direct, kept):
            numbers = await stream.until_cut()
            assert numbers == list(range(1, len(numbers) + 1))
        topic.server.start()
        last = shared.numbers()[-1]
        assert await shared.until(last + 100) == list(range(shared.numbers()[0], shared.numbers()[-1] + 1))


@modes
@pytest.mark.parametrize("server", names(lambda kind: kind.name == "webflux"), indirect=True)
async def test_upstream_negotiates_with_a_client_that_accepts_no_event_stream(topic: Topic, mode: str) -> None:
    async with topic.ask("items", mode, Accept="application/json") as stream:
        assert stream.answer.headers["Content-Type"] == "application/json"
        assert await stream.to_end() == b'[{"number":1},{"number":2},{"number":3}]'
    async with topic.ask("items", mode) as stream:
        assert stream.answer.headers["Content-Type"].startswith("text/event-stream")
