"""The streams, over real sockets."""

import asyncio

import httpx
import pytest

from eventstream import HEARTBEAT, HEARTBEAT_BLOCK
from producer.settings import Settings
from tests.kit.producer import events_of, serve
from tests.kit.waiting import GUARD_SECONDS

FAST = Settings(interval_ms=1)
FIRST_BLOCK = "event: message\nretry: 15000\ndata: 七\n\n".encode()


async def test_demo_text_is_one_character_per_event_with_type_and_retry() -> None:
    async with serve(FAST) as producer:
        answer = await producer.http.get("/")
    events = events_of(answer.content)
    assert answer.content.startswith(FIRST_BLOCK)
    assert "".join(event.data for event in events) == "七夕情人节即将来临,我们为您准备了精美的鲜花和美味的蛋糕"
    assert {(event.type, event.retry, event.id) for event in events} == {("message", 15000, None)}


async def test_both_ways_of_sending_produce_the_same_bytes() -> None:
    async with serve(FAST) as producer:
        message = {"message": "One, two 👍🏽\r\nthree"}
        demo = [(await producer.http.get(path)).content for path in ("/", "/plain")]
        posted = [(await producer.http.post(path, json=message)).content for path in ("/sse", "/plain")]
    assert demo[0] == demo[1]
    assert posted[0] == posted[1]
    assert "".join(event.data for event in events_of(posted[0])) == "One, two 👍🏽\nthree"


@pytest.mark.parametrize("path", ["/", "/plain"])
async def test_first_event_arrives_long_before_the_second(path: str) -> None:
    async with serve(Settings()) as producer, producer.http.stream("GET", path, params={"interval_ms": 60_000}) as answer:
        body = answer.aiter_bytes()
        async with asyncio.timeout(GUARD_SECONDS):
            assert await anext(body) == FIRST_BLOCK
        assert await producer.meter("producer_events_sent_total") == 1
        assert await producer.meter("producer_streams_open") == 1


@pytest.mark.parametrize("path", ["/sse", "/plain"])
async def test_an_emoji_with_modifiers_stays_one_event(path: str) -> None:
    async with serve(FAST) as producer:
        answer = await producer.http.post(path, json={"message": "👨‍👩‍👧‍👦👍🏽!"})
    assert [event.data for event in events_of(answer.content)] == ["👨‍👩‍👧‍👦", "👍🏽", "!"]


async def test_events_have_the_requested_interval() -> None:
    async with serve(FAST) as producer:
        began = asyncio.get_running_loop().time()
        await producer.http.post("/plain", json={"message": "abc"}, params={"interval_ms": 150})
        assert asyncio.get_running_loop().time() - began >= 0.29


@pytest.mark.parametrize(
    ("split", "pieces"),
    [("word", ["to ", "be,\n", "or ", "not"]), ("line", ["to be,", "or not"])],
)
async def test_text_is_cut_as_requested(split: str, pieces: list[str]) -> None:
    async with serve(FAST) as producer:
        answer = await producer.http.post("/sse", json={"message": "to be,\r\nor not"}, params={"split": split})
    assert [event.data for event in events_of(answer.content)] == pieces


async def test_text_is_repeated_as_requested_and_numbered_throughout() -> None:
    async with serve(FAST) as producer:
        answer = await producer.http.post("/sse", json={"message": "ab"}, params={"repeat": 2, "ids": "true", "interval_ms": 0})
    assert [(event.id, event.data) for event in events_of(answer.content)] == [("1", "a"), ("2", "b"), ("3", "a"), ("4", "b")]


@pytest.mark.parametrize("path", ["/", "/plain"])
async def test_headers_forbid_proxies_to_buffer_the_stream(path: str) -> None:
    async with serve(FAST) as producer:
        got = await producer.http.get(path)
        head = await producer.http.head(path)
    for answer in (got, head):
        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["Cache-Control"] == "no-store, no-transform"
        assert answer.headers["X-Accel-Buffering"] == "no"
    assert head.content == b""


@pytest.mark.parametrize("path", ["/sse", "/plain"])
async def test_heartbeats_are_comments_between_events_and_nothing_else(path: str) -> None:
    query = {"interval_ms": 110, "split": "line"}
    async with serve(Settings(heartbeat_seconds=0.02)) as producer:
        answer = await producer.http.post(path, json={"message": "ab\ncd"}, params=query)
        numbered = await producer.http.post(path, json={"message": "ab\ncd"}, params=query | {"ids": "true"})
        resumed = await producer.http.post(
            path, json={"message": "ab\ncd\nef"}, params=query | {"ids": "true"}, headers={"Last-Event-ID": "1"}
        )
        returned = await producer.http.post(path, json={"message": "ab\ncd"}, params=query, headers={"Last-Event-ID": "1"})
    blocks = [b"event: message\nretry: 15000\ndata: %s\n\n" % data for data in (b"ab", b"cd", b"ef")]
    first, second, third = [b"id: %d\n" % number + block for number, block in enumerate(blocks, 1)]
    assert answer.content == blocks[0] + HEARTBEAT_BLOCK * 5 + blocks[1]
    assert numbered.content == first + HEARTBEAT * 5 + second
    assert returned.content == blocks[0] + HEARTBEAT * 5 + blocks[1]
    assert resumed.content == second + HEARTBEAT * 5 + third


async def test_reader_that_skips_blocks_beginning_with_a_colon_loses_no_event_to_heartbeats() -> None:
    async with serve(Settings(heartbeat_seconds=0.02)) as producer:
        answer = await producer.http.post("/plain", json={"message": "abcde"}, params={"interval_ms": 50})
    blocks = [block for block in answer.text.split("\n\n") if block and not block.startswith(":")]
    assert [block.splitlines()[-1] for block in blocks] == [f"data: {letter}" for letter in "abcde"]


@pytest.mark.parametrize("path", ["/sse", "/plain"])
async def test_heartbeat_never_lands_inside_a_block_that_a_slow_reader_delays(path: str) -> None:
    line = "x" * 100_000
    async with serve(Settings(heartbeat_seconds=0.001, max_message_chars=300_000)) as producer:
        query = {"interval_ms": "3", "repeat": "50", "split": "line"}
        async with producer.http.stream("POST", path, json={"message": f"{line}\n{line}"}, params=query) as answer:
            await producer.holds_up_writing()
            body = b"".join([part async for part in answer.aiter_raw(10_000)])
    block = b"event: message\nretry: 15000\ndata: %s\n\n" % line.encode()
    between = body.split(block)
    assert len(between) == 101
    assert between[0] == between[-1] == b""
    assert all(comments and comments == HEARTBEAT_BLOCK * (len(comments) // 3) for comments in between[1:-1])


@pytest.mark.parametrize("host", ["", "[::1]", "producer"])
async def test_host_header_changes_nothing(host: str) -> None:
    async with serve(FAST) as producer:
        answer = await producer.http.get("/", headers={"Host": host})
        unknown = await producer.http.get("/nothing", headers={"Host": host})
        assert 'producer_events_sent_total{route="GET /"} 28.0' in (await producer.http.get("/metrics")).text
    assert len(events_of(answer.content)) == 28
    assert (unknown.status_code, unknown.json()["detail"]) == (404, "there is nothing at /nothing; /docs lists all paths")


async def test_body_of_a_get_is_dropped() -> None:
    async with serve(FAST) as producer:
        answer = await producer.http.request("GET", "/", content=b"x" * 1_000_000)
    assert len(events_of(answer.content)) == 28


async def test_many_streams_run_side_by_side() -> None:
    async with serve(FAST) as producer:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=producer.http.base_url, timeout=GUARD_SECONDS, limits=limits) as many:
            answers = await asyncio.gather(*(many.get(path) for path in ["/", "/plain"] * 25))
    assert len({answer.content for answer in answers}) == 1
