"""What an EventSource reports besides events: changes of its state, the newest answer, and blocks with their events."""

import re

import pytest

from eventstream import BlockTooLarge, ConnectionFailed, Event
from eventstream.client import EventSource
from tests.eventstream.following import NO_CONTENT, answer, asked_ids, following, patient, stream
from tests.kit.upstream import LAST_CHUNK, Disconnect, Silence, chunk

Change = tuple[str, int | None, bool]


class Changes:
    """Record each change of an event source: its state, the status of the newest answer, and whether there is an error."""

    def __init__(self) -> None:
        self.seen: list[Change] = []

    def __call__(self, source: EventSource) -> None:
        self.seen.append((source.state, source.last_status, source.last_error is not None))


async def test_on_change_reports_each_opening_each_loss_and_the_end() -> None:
    changes = Changes()
    scripts = [[stream(b"data: a\n\n") + LAST_CHUNK], [stream(b"data: b\n\n"), Disconnect()], [NO_CONTENT]]
    async with following(*scripts, on_change=changes) as (_, source):
        assert [event.data async for event in source] == ["a", "b"]
    assert changes.seen == [
        ("open", 200, False),
        ("connecting", 200, True),
        ("open", 200, False),
        ("connecting", 200, True),
        ("closed", 204, True),
    ]


async def test_on_change_reports_each_failed_attempt_with_the_status_of_its_answer() -> None:
    changes = Changes()
    async with following([Disconnect()], [answer(503)], [answer(429)], [Disconnect()], [NO_CONTENT], on_change=changes) as (_, source):
        assert [event async for event in source] == []
    assert changes.seen == [
        ("connecting", None, True),
        ("connecting", 503, True),
        ("connecting", 429, True),
        ("connecting", None, True),
        ("closed", 204, True),
    ]


async def test_last_loss_distinguishes_failed_attempts_lost_streams_and_ended_streams() -> None:
    told: list[tuple[str | None, float]] = []
    scripts = [
        [answer(503, "Retry-After: 0")],
        [stream(b"data: a\n\n"), Disconnect()],
        [stream(b"data: b\n\n"), Disconnect(reset=True)],
        [stream(b"data: c\n\n") + LAST_CHUNK],
        [Disconnect()],
        [answer(503, "Retry-After: 1")],
        [NO_CONTENT],
    ]
    async with following(*scripts, on_change=lambda source: told.append((source.last_loss, source.retry_after_seconds))) as (_, source):
        assert [event.data async for event in source] == ["a", "b", "c"]
    assert told[:-1] == [
        ("failed", 0),
        (None, 0),
        ("lost", 0),
        (None, 0),
        ("lost", 0),
        (None, 0),
        ("ended", 0),
        ("failed", 0),
        ("failed", 1),
    ]


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        pytest.param(answer(404), 404, id="status"),
        pytest.param(answer(200, "Content-Type: text/html"), 200, id="content type"),
        pytest.param(answer(301), 301, id="redirect without a target"),
    ],
)
async def test_on_change_reports_a_final_refusal_once(refusal: bytes, status: int) -> None:
    changes = Changes()
    async with following([refusal], on_change=changes) as (_, source):
        with pytest.raises(ConnectionFailed):
            await anext(source)
        await source.close()
    assert changes.seen == [("closed", status, True)]


async def test_failure_before_any_answer_leaves_no_status() -> None:
    async with following([stream(b"id: a\x01b\n\n"), Disconnect()]) as (_, source):  # an ID that a header cannot carry
        with pytest.raises(ConnectionFailed):
            await anext(source)
        assert source.last_status is None
        assert source.state == "closed"


async def test_on_change_reports_a_block_over_the_limit_after_the_blocks_before_it() -> None:
    told: list[tuple[str, str]] = []
    body = [stream(b"data: a\n\n", b"data: 0123456789\n\n"), Silence()]
    async with following(
        body, [NO_CONTENT], on_change=lambda source: told.append((source.state, source.last_error or "")), max_block_bytes=12
    ) as (_, source):
        blocks = source.blocks()
        assert await anext(blocks) == b"data: a\n\n"
        with pytest.raises(BlockTooLarge):
            await anext(blocks)
    assert [state for state, _ in told] == ["open", "connecting", "closed"]
    assert re.fullmatch(r"event block reached \d\d bytes, limit is 12", told[-1][1])


async def test_restart_is_reported_only_as_the_next_opening() -> None:
    changes = Changes()
    async with following([stream(b"data: a\n\n"), Silence()], [stream(b"data: b\n\n"), Silence()], on_change=changes) as (_, source):
        await anext(source)
        source.restart()
        await anext(source)
        assert changes.seen == [("open", 200, False)] * 2
    assert changes.seen[2:] == [("closed", 200, True)]


async def test_close_is_reported_once_even_before_the_first_attempt() -> None:
    changes = Changes()
    async with following([NO_CONTENT], on_change=changes) as (upstream, source):
        await source.close()
        await source.close()
        assert changes.seen == [("closed", None, True)]
        assert upstream.requests == []


async def test_restart_from_on_change_makes_the_next_attempt_at_once() -> None:
    def hurry(source: EventSource) -> None:
        if source.state == "connecting":
            source.restart()

    scripts = [[answer(500)], [stream(b"data: a\n\n"), Disconnect()], [NO_CONTENT]]
    async with following(*scripts, on_change=hurry, reconnection=patient()) as (upstream, source):
        assert [event.data async for event in source] == ["a"]
        assert len(upstream.requests) == 3


async def test_response_headers_are_those_of_the_newest_stream() -> None:
    def with_fields(*fields: bytes) -> bytes:
        return b"\r\n".join([b"HTTP/1.1 200 OK", b"Content-Type: text/event-stream", b"Transfer-Encoding: chunked", *fields, b"", b""])

    first = with_fields(b"X-Server: one", b"Vary: a", b"Vary: b") + chunk(b"data: a\n\n")
    second = with_fields(b"X-Server: two") + chunk(b"data: b\n\n")
    async with following([first, Disconnect()], [answer(503, "X-Server: ill")], [second, Silence()]) as (_, source):
        assert dict(source.response_headers) == {}
        await anext(source)
        assert source.response_headers["x-server"] == "one"
        assert source.response_headers.getall("Vary") == ["a", "b"]
        await anext(source)
        assert source.response_headers["X-Server"] == "two"
        assert "Vary" not in source.response_headers
        assert source.last_status == 200


async def test_parsed_blocks_yields_each_block_with_its_event_and_updates_the_last_event_id() -> None:
    blocks = [b": hi\n\n", b"id: 1\ndata: a\n\n", b"id: 2\n\n", b"event: x\r\ndata: b\r\n\r\n", b"retry: 0\n\n", b"id\ndata\n\n"]
    seen = []
    async with following([stream(b"".join(blocks)), Disconnect()], [NO_CONTENT]) as (upstream, source):
        async for block, event in source.parsed_blocks():
            seen.append((block, event and (event.type, event.data, event.id), source.last_event_id))
        assert asked_ids(upstream) == [None, None]
    assert seen == [
        (b": hi\n\n", None, ""),
        (b"id: 1\ndata: a\n\n", ("message", "a", "1"), "1"),
        (b"id: 2\n\n", None, "2"),
        (b"event: x\r\ndata: b\r\n\r\n", ("x", "b", None), "2"),
        (b"retry: 0\n\n", None, "2"),
        (b"id\ndata\n\n", ("message", "", ""), ""),
    ]


async def test_parsed_blocks_blocks_and_events_may_alternate() -> None:
    body = b"".join(b"id: %d\ndata: %d\n\n" % (number, number) for number in range(4))
    async with following([stream(body), Silence()]) as (_, source):
        block, event = await anext(source.parsed_blocks())
        assert (block, event and event.data) == (b"id: 0\ndata: 0\n\n", "0")
        assert await anext(source.blocks()) == b"id: 1\ndata: 1\n\n"
        following_event: Event = await anext(source)
        assert following_event.data == "2"
        _, event = await anext(source.parsed_blocks())
        assert event is not None
        assert event.last_event_id == "3"
