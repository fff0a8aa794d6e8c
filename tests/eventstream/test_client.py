"""EventSource over real sockets: connecting, losing, restarting and closing, and the events meanwhile."""

import asyncio
import contextlib
import gzip
import itertools
import re
import socket

import aiohttp
import pytest
import zstandard

from eventstream import BlockTooLarge, ConnectionFailed, DecodedTooLarge, Event, Reconnection
from eventstream.client import EventSource
from tests.eventstream.following import NO_CONTENT, answer, asked_ids, at_once, following, patient, stream
from tests.kit.upstream import (
    EVENT_STREAM_HEAD,
    LAST_CHUNK,
    Act,
    Asked,
    Disconnect,
    Flood,
    Pause,
    Script,
    ScriptedUpstream,
    Silence,
    chunk,
)
from tests.kit.waiting import until


async def test_stream_reconnects_after_its_end_and_ends_for_good_with_204() -> None:
    async with following([stream(b"data: a\n\n") + LAST_CHUNK], [stream(b"data: b\n\n"), Disconnect()], [NO_CONTENT]) as (upstream, source):
        assert [event.data async for event in source] == ["a", "b"]
        assert (source.state, source.connections, source.last_error) == ("closed", 2, "the server answered 204 No Content")
        assert [event async for event in source] == []
        assert len(upstream.requests) == 3


async def test_state_shows_whether_a_stream_is_open() -> None:
    lost = Pause()
    async with following([stream(b": hi\n\ndata: a\n\n"), lost, Disconnect()], [Silence()]) as (upstream, source):
        assert (source.state, source.connections, source.bytes_received, source.last_error) == ("connecting", 0, 0, None)
        assert repr(source) == f"<EventSource {upstream.url} connecting last_event_id='' connections=0>"
        await anext(source)
        assert (source.state, source.connections, source.bytes_received, source.last_error) == ("open", 1, 15, None)
        lost.go()
        reading = asyncio.ensure_future(anext(source, None))
        await upstream.wait_for_requests(2)
        assert (source.state, source.connections) == ("connecting", 1)
        assert source.last_error is not None
        assert source.last_error.startswith("Response payload is not completed")
        await source.close()
        assert await reading is None
        assert (source.state, source.last_error) == ("closed", "closed")


async def test_reconnection_asks_for_the_events_after_the_last_whole_block() -> None:
    blocks = b"id: 1\ndata: a\n\nid: 2\n\nid: 3\ndata: lost\n"
    async with following([stream(blocks), Disconnect()], [stream(b"id: 3\ndata: b\n\n"), Disconnect()], [NO_CONTENT]) as (upstream, source):
        assert [event.id async for event in source] == ["1", "3"]
        assert asked_ids(upstream) == [None, "2", "3"]


async def test_first_request_resumes_from_a_given_id_until_an_event_resets_it() -> None:
    async with following([stream(b"id\ndata: a\n\n"), Disconnect()], [NO_CONTENT], last_event_id="七-41") as (upstream, source):
        assert source.last_event_id == "七-41"
        assert (await anext(source)).last_event_id == ""
        assert await anext(source, None) is None
        assert asked_ids(upstream) == ["七-41", None]


async def test_last_event_id_is_that_of_the_event_just_yielded_not_of_one_read_ahead() -> None:
    async with following([stream(b"id: 1\ndata: a\n\nid: 2\ndata: b\n\n"), Silence()]) as (_, source):
        await anext(source)
        assert source.last_event_id == "1"
        await anext(source)
        assert source.last_event_id == "2"


async def test_id_that_a_header_cannot_carry_fails_the_connection_instead_of_skipping_events() -> None:
    async with following([stream(b"id: a\x01b\ndata: a\n\n"), Disconnect()]) as (_, source):
        await anext(source)
        with pytest.raises(ConnectionFailed, match="the request cannot be sent: Forbidden control character"):
            await anext(source)
        assert source.state == "closed"


async def test_events_are_whole_and_yielded_once_wherever_the_upstream_is_cut() -> None:
    blocks = ["id: 1\ndata: 七\n\n", "id: 2\r\ndata: b\r\n\r\n", "id: 3\rdata: c\r\r"]
    whole = "".join(blocks).encode()

    def rest(asked: Asked) -> Script:
        if asked.header("Last-Event-ID") == "3":
            return [NO_CONTENT]
        return [stream("".join(blocks[int(asked.header("Last-Event-ID") or 0) :]).encode()), Disconnect()]

    for offset in range(1, len(whole)):
        async with following([stream(whole[:offset]), Disconnect(reset=offset % 2 == 0)], rest) as (_, source):
            assert [(event.id, event.data) async for event in source] == [("1", "七"), ("2", "b"), ("3", "c")]


async def test_byte_order_mark_is_dropped_on_each_connection() -> None:
    body = stream(b"\xef\xbb", b"\xbfdata: a\n\n")
    async with following([body, Disconnect()], [body, Disconnect()], [NO_CONTENT]) as (_, source):
        assert [event.data async for event in source] == ["a", "a"]


async def test_retry_of_the_server_sets_the_next_delay() -> None:
    async with following([stream(b"retry: 20\n\n"), Disconnect()], [NO_CONTENT], reconnection=patient()) as (upstream, source):
        assert source.reconnection_time is None
        assert await anext(source, None) is None
        assert len(upstream.requests) == 2
        assert source.reconnection_time == 20


async def test_back_off_grows_while_attempts_fail_and_resets_with_a_new_event() -> None:
    failures: list[int] = []

    class Counting(Reconnection):
        def next_delay(self) -> float:
            failures.append(self.failures)
            return 0.0

    scripts = [[answer(500)], [Disconnect()], [stream(b"data: a\n\n"), Disconnect()], [answer(502)], [NO_CONTENT]]
    async with following(*scripts, reconnection=Counting()) as (_, source):
        assert [event.data async for event in source] == ["a"]
    assert failures == [1, 2, 0, 1]


async def test_refused_connection_is_retried_when_due() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        async with EventSource(url, reconnection=patient()) as source:
            reading = asyncio.ensure_future(anext(source, None))
            await until(lambda: source.last_error)
            assert re.match("Cannot connect to host 127.0.0.1", source.last_error or "")
            assert (source.state, source.connections) == ("connecting", 0)
            await source.close()
            assert await reading is None


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
async def test_server_that_hangs_up_without_an_answer_gets_one_request_per_attempt(reset: bool) -> None:
    async with following([Disconnect(reset=reset)], [Disconnect(reset=reset)], [NO_CONTENT]) as (upstream, source):
        assert await anext(source, None) is None
        assert len(upstream.requests) == 3
        assert source.connections == 0


async def test_connect_timeout_ends_an_attempt_at_a_host_that_does_not_answer() -> None:
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):  # from here on the queue of connections is full
            caller = sockets.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(listener.getsockname())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        async with EventSource(url, reconnection=patient(), connect_timeout_seconds=0.2) as source:
            reading = asyncio.ensure_future(anext(source, None))
            await until(lambda: source.last_error)
            assert source.last_error == f"Connection timeout to host {url}"
            await source.close()
            await reading


async def test_read_timeout_drops_a_silent_connection_and_reconnects() -> None:
    async with following([stream(b"data: a\n\n"), Silence()], [NO_CONTENT], read_timeout_seconds=1, reconnection=patient()) as (
        upstream,
        source,
    ):
        await anext(source)
        reading = asyncio.ensure_future(anext(source, None))
        await until(lambda: source.last_error)
        assert source.last_error == "no byte arrived for 1 s"
        await upstream.requests[0].left.wait()
        source.restart()
        assert await reading is None


async def test_read_timeout_applies_to_the_head_of_the_answer_too() -> None:
    async with following([Silence()], [NO_CONTENT], read_timeout_seconds=0.2) as (upstream, source):
        assert await anext(source, None) is None
        assert len(upstream.requests) == 2


async def test_any_byte_keeps_a_connection_alive() -> None:
    async def send_comments(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(24):
            await asyncio.sleep(0.05)
            writer.write(chunk(b":\n"))

    async with following([EVENT_STREAM_HEAD, Act(send_comments), chunk(b"data: a\n\n"), Silence()], read_timeout_seconds=1) as (_, source):
        assert (await anext(source)).data == "a"
        assert source.connections == 1


@pytest.mark.parametrize(
    "end", [Disconnect(), Disconnect(reset=True), Silence(), b"zz\r\nno HTTP chunk\r\n"], ids=["FIN", "RST", "silence", "garbage"]
)
async def test_events_that_came_before_the_connection_broke_are_yielded(end: Disconnect | Silence | bytes) -> None:
    more = Pause()
    script = [stream(b"data: a\n\n"), more, chunk(b"data: b\n\ndata: c\n\ndata: lost\n"), end, Silence()]
    async with following(script, [NO_CONTENT], read_timeout_seconds=1) as (_, source):
        await anext(source)
        assert source._body is not None
        content = source._body.response.content
        more.go()
        await until(content.exception)  # the source knows that the connection broke before the test reads the events before it
        assert [event.data async for event in source] == ["b", "c"]


async def test_malformed_http_chunk_counts_as_a_lost_connection() -> None:
    broken = Pause()
    async with following([stream(b"data: a\n\n"), broken, b"zz\r\nno size\r\n", Silence()], [NO_CONTENT], reconnection=patient()) as (
        _,
        source,
    ):
        await anext(source)
        reading = asyncio.ensure_future(anext(source, None))
        broken.go()
        await until(lambda: source.last_error)
        assert source.last_error == "malformed HTTP chunk"
        source.restart()
        assert await reading is None


async def test_answer_that_is_not_http_counts_as_a_network_error() -> None:
    async with following([b"SSH-2.0-OpenSSH\r\n\r\n", Disconnect()], [NO_CONTENT]) as (_, source):
        assert await anext(source, None) is None


async def test_body_without_a_length_ends_with_its_connection() -> None:
    head = b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    async with following([head + b"data: a\n\n", Disconnect()], [head + b"data: b\n\n", Disconnect()], [NO_CONTENT]) as (_, source):
        assert [event.data async for event in source] == ["a", "b"]


async def test_body_that_arrives_with_its_head_is_read() -> None:
    body = b"data: a\n\n"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with following([head + body], [NO_CONTENT]) as (_, source):
        assert [event.data async for event in source] == ["a"]


@pytest.mark.parametrize(("retry", "brings_news"), [(0, False), (2, False), (0, True)])
async def test_streams_that_end_at_once_back_off_unless_they_bring_a_new_event(retry: int, brings_news: bool) -> None:
    asked_at: list[float] = []

    def end_at_once(_asked: Asked) -> Script:
        asked_at.append(asyncio.get_running_loop().time())
        event = b"data: a\n\n" if brings_news else b": nothing\n\n"
        return [NO_CONTENT] if len(asked_at) == 5 else [stream(b"retry: %d\n\n" % retry + event) + LAST_CHUNK]

    async with following(end_at_once, reconnection=Reconnection()) as (_, source):
        assert len([event async for event in source]) == 4 * brings_news
    waits = [after - before for before, after in itertools.pairwise(asked_at)]
    least = [0.1, 0.1, 0.1, 0.1] if brings_news else [0.1, 0.2, 0.4, 0.8]
    assert all(wait > 0.99 * shortest for wait, shortest in zip(waits, least, strict=True)), waits


@pytest.mark.parametrize("end", [LAST_CHUNK, b""], ids=["ended", "cut"])
async def test_retry_of_an_unfinished_block_counts_when_its_line_is_complete(end: bytes) -> None:
    torn = stream(b"data: a\n\nretry: 40\ndata: lost\nretry: 5") + end
    whole = stream(b"id: 7\nretry: 50\n") + end
    async with following([torn, Disconnect()], [whole, Disconnect()], [NO_CONTENT]) as (upstream, source):
        assert (await anext(source)).data == "a"
        assert await anext(source, None) is None
        assert (source.reconnection_time, source.last_event_id) == (50, "")
        assert asked_ids(upstream) == [None, None, None]


async def test_attempt_in_replaces_the_delay_of_the_back_off() -> None:
    async with following([answer(500)], [stream(b"data: a\n\n"), Silence()], reconnection=patient()) as (_, source):
        source.attempt_in(3600)  # the first attempt is not delayed
        reading = asyncio.ensure_future(anext(source))
        await until(lambda: source.last_error)
        source.attempt_in(7200)
        assert source.next_attempt_seconds > 3600
        source.attempt_in(0.01)
        assert (await reading).data == "a"
        source.attempt_in(0)  # a stream is open
        assert source.state == "open"
        assert source.next_attempt_seconds == 0


async def test_attempt_in_leaves_an_attempt_that_is_under_way_alone() -> None:
    answering = Pause()
    async with following([answer(500)], [answering, stream(b"data: a\n\n"), Silence()], reconnection=patient()) as (upstream, source):
        reading = asyncio.ensure_future(anext(source))
        await until(lambda: source.last_error)
        source.attempt_in(0)
        await answering.reached.wait()
        source.attempt_in(3600)
        answering.go()
        assert (await reading).data == "a"
        assert len(upstream.requests) == 2


async def test_attempt_in_may_be_called_from_on_change() -> None:
    def hurry(source: EventSource) -> None:
        source.attempt_in(0)

    scripts = [[answer(503, "Retry-After: 3600")], [stream(b"data: a\n\n"), Disconnect()], [NO_CONTENT]]
    async with following(*scripts, on_change=hurry, reconnection=patient()) as (upstream, source):
        assert [event.data async for event in source] == ["a"]
        assert len(upstream.requests) == 3


async def test_restart_drops_the_connection_and_reconnects_at_once() -> None:
    async with following([stream(b"id: 1\ndata: a\n\n"), Silence()], [stream(b"data: b\n\n"), Silence()], reconnection=patient()) as (
        upstream,
        source,
    ):
        await anext(source)
        reading = asyncio.ensure_future(anext(source))
        await asyncio.sleep(0)
        source.restart()
        assert source.last_error == "restarted"
        assert (await reading).data == "b"
        assert upstream.requests[0].left.is_set()
        assert asked_ids(upstream) == [None, "1"]
        assert (source.connections, source.last_error) == (2, None)


async def test_restart_ends_the_back_off_even_when_called_twice() -> None:
    async with following([answer(500)], [stream(b"data: a\n\n"), Silence()], reconnection=patient()) as (_, source):
        reading = asyncio.ensure_future(anext(source))
        assert source.next_attempt_seconds == 0
        await until(lambda: source.last_error)
        assert source.next_attempt_seconds > 10
        source.restart()
        source.restart()
        assert source.next_attempt_seconds == 0
        assert (await reading).data == "a"


async def test_restart_cancels_an_attempt_that_gets_no_answer() -> None:
    async with following([Silence()], [stream(b"data: a\n\n"), Silence()], reconnection=patient()) as (upstream, source):
        reading = asyncio.ensure_future(anext(source))
        await upstream.wait_for_requests(1)
        source.restart()
        assert (await reading).data == "a"
        assert upstream.requests[0].left.is_set()


async def test_restart_between_events_first_yields_the_events_that_were_read() -> None:
    first = stream(b"id: 1\ndata: a\n\nid: 2\ndata: b\n\n")
    async with following([first, Silence()], [stream(b"data: c\n\n"), Silence()], reconnection=patient()) as (upstream, source):
        await anext(source)
        source.restart()
        assert source.state == "connecting"
        assert [(await anext(source)).data, (await anext(source)).data] == ["b", "c"]
        assert asked_ids(upstream) == [None, "2"]


async def test_restart_without_a_connection_does_nothing() -> None:
    async with following([stream(b"data: a\n\n"), Silence()]) as (upstream, source):
        source.restart()
        assert source.last_error is None
        assert (await anext(source)).data == "a"
        await source.close()
        source.restart()
        assert (source.state, source.last_error) == ("closed", "closed")
        assert await anext(source, None) is None
        assert len(upstream.requests) == 1


@pytest.mark.parametrize("script", [[Silence()], [EVENT_STREAM_HEAD, Silence()]], ids=["before the answer", "while reading"])
async def test_close_ends_a_waiting_iteration_and_the_connection(script: Script) -> None:
    async with following(script) as (upstream, source):
        reading = asyncio.ensure_future(anext(source, None))
        await upstream.wait_for_requests(1)
        await source.close()
        await source.close()
        assert await reading is None
        await upstream.requests[0].left.wait()


async def test_close_ends_the_back_off() -> None:
    async with following([answer(500)], reconnection=patient()) as (_, source):
        reading = asyncio.ensure_future(anext(source, None))
        await until(lambda: source.last_error)
        await source.close()
        assert await reading is None


async def test_close_at_the_moment_the_next_attempt_is_due_prevents_it() -> None:
    async with following([stream(b"data: a\n\n"), Silence()]) as (upstream, source):
        reading = asyncio.ensure_future(anext(source, None))
        await asyncio.sleep(0)  # it waits for its turn, which is the next one
        await source.close()
        assert await reading is None
        assert upstream.requests == []
        assert source._session is None  # a session that is opened after close() would stay open


@pytest.mark.parametrize("status", [200, 500])
async def test_restart_at_the_moment_the_answer_comes_reconnects_at_once(status: int) -> None:
    async def restart_once(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        response = await send(request)
        if len(upstream.requests) == 1:
            source.restart()
        return response

    first = stream(b"data: a\n\n") if status == 200 else answer(status)
    async with (
        aiohttp.ClientSession(middlewares=[restart_once]) as session,
        following([first, Silence()], [NO_CONTENT], session=session, reconnection=patient()) as (upstream, source),
    ):
        assert await anext(source, None) is None
        assert len(upstream.requests) == 2
        await upstream.requests[0].left.wait()


async def test_close_at_the_moment_the_answer_comes_leaves_no_connection() -> None:
    async def close(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        response = await send(request)
        await source.close()
        return response

    async with (
        aiohttp.ClientSession(middlewares=[close]) as session,
        following([stream(b"data: a\n\n"), Silence()], session=session) as (upstream, source),
    ):
        assert await anext(source, None) is None
        assert (source.state, source.connections) == ("closed", 0)
        await upstream.requests[0].left.wait()


async def test_blocks_read_ahead_are_not_yielded_after_close() -> None:
    async with following([stream(b"data: a\n\ndata: b\n\n"), Silence()]) as (_, source):
        await anext(source)
        await source.close()
        assert [event async for event in source] == []


async def test_session_that_was_passed_in_is_used_and_left_open() -> None:
    async with aiohttp.ClientSession(headers={"X-Session": "yes"}, raise_for_status=True) as session:
        async with following([stream(b"data: a\n\n"), Disconnect()], [answer(404)], session=session) as (upstream, source):
            assert (await anext(source)).data == "a"
            assert upstream.requests[0].header("X-Session") == "yes"
            with pytest.raises(ConnectionFailed, match="status must be 200 for an event stream, got 404"):
                await anext(source)
        assert not session.closed


async def test_iteration_can_be_left_and_resumed() -> None:
    async with following([stream(b"data: a\n\ndata: b\n\n"), Silence()]) as (upstream, source):
        async for event in source:
            assert event.data == "a"
            break
        async for event in source:
            assert event.data == "b"
            break
        assert len(upstream.requests) == 1


async def test_cancelled_wait_loses_nothing() -> None:
    more = Pause()
    async with following([stream(b"id: 1\ndata: a\n\nid: 2\n"), more, chunk(b"data: b\n\n"), Silence()]) as (upstream, source):
        await anext(source)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(source), 0.05)
        more.go()
        assert (await anext(source)).id == "2"
        assert len(upstream.requests) == 1


async def test_cancelled_wait_does_not_delay_the_next_attempt() -> None:
    async with following([answer(500)], [NO_CONTENT], reconnection=Reconnection(initial_seconds=0.3, jitter=0)) as (_, source):
        ended = False
        for _ in range(100):
            with contextlib.suppress(TimeoutError):
                ended = await asyncio.wait_for(anext(source, None), 0.1) is None
                break
        assert ended


async def test_second_task_may_not_iterate_at_the_same_time() -> None:
    async with following([EVENT_STREAM_HEAD, Silence()]) as (upstream, source):
        reading = asyncio.ensure_future(anext(source, None))
        await upstream.wait_for_requests(1)
        with pytest.raises(RuntimeError, match="being iterated by another task"):
            await anext(source)
        await source.close()
        await reading


async def test_blocks_are_yielded_unchanged_one_at_a_time_and_update_id_and_retry() -> None:
    sent = [b"id: 1\r\nfoo: bar\r\ndata: a\r\n\r\n", b": note\n\n", b"retry: 0\rid: 2\r\r", b"data: \xff\n\n\n"]
    async with following([stream(b"\xef\xbb\xbf" + b"".join(sent) + b"id: 3\n"), Disconnect()], [NO_CONTENT], reconnection=patient()) as (
        upstream,
        source,
    ):
        assert [block async for block in source.blocks()] == sent
        assert asked_ids(upstream) == [None, "2"]


async def test_comments_are_reported() -> None:
    comments: list[str] = []
    async with following([stream(b": one\n\n:two\ndata: a\n\n"), Silence()], on_comment=comments.append) as (_, source):
        assert await anext(source) == Event("a")
        assert comments == ["one", "two"]


@pytest.mark.parametrize("sent", [[b":one\n"], [b":on", b"e\r"], [b"data: a\n:one\r\n"], [b"\xef\xbb\xbf:one\n"]])
async def test_comment_is_reported_once_when_its_line_is_complete(sent: list[bytes]) -> None:
    comments: list[str] = []
    more = Pause()
    script = [stream(*sent), more, chunk(b":two\ndata: b\n\n:three\n"), Silence()]
    async with following(script, on_comment=comments.append) as (_, source):
        reading = asyncio.ensure_future(anext(source))
        await until(lambda: comments == ["one"])
        more.go()
        assert (await reading).data.endswith("b")
        assert comments == ["one", "two"]
        reading = asyncio.ensure_future(anext(source, None))
        await until(lambda: comments == ["one", "two", "three"])
        await source.close()
        assert await reading is None


async def test_comment_of_a_lost_unfinished_block_hides_no_comment_of_the_next_connection() -> None:
    comments: list[str] = []
    scripts = [[stream(b":one\n"), Disconnect()], [stream(b":two\n\n"), Disconnect()], [NO_CONTENT]]
    async with following(*scripts, on_comment=comments.append) as (_, source):
        assert await anext(source, None) is None
    assert comments == ["one", "two"]


async def test_on_comment_may_close_the_event_source() -> None:
    closing: list[asyncio.Task[None]] = []

    def close(_comment: str) -> None:
        closing.append(asyncio.create_task(source.close()))

    async with following([stream(b":\n"), Silence()], on_comment=close) as (_, source):
        assert await anext(source, None) is None
        await closing[0]


@pytest.mark.parametrize("end", [LAST_CHUNK, Disconnect(), Disconnect(reset=True)], ids=["end", "FIN", "RST"])
async def test_retry_of_an_unfinished_block_counts_however_the_stream_ends(end: bytes | Disconnect) -> None:
    more = Pause()
    body = [stream(b"retry: 3600000\ndata: a\n\n"), more, chunk(b"data: b\n\nid: lost\nretry: 20\n"), end]
    async with following(body, [NO_CONTENT], reconnection=patient()) as (upstream, source):
        assert (await anext(source)).data == "a"
        more.go()
        assert (await anext(source)).data == "b"
        assert await anext(source, None) is None
        assert source.reconnection_time == 20
        assert asked_ids(upstream) == [None, None]


async def test_incomplete_retry_line_does_not_count() -> None:
    async with following([stream(b"retry: 30\n\nretry: 36000000"), Disconnect()], [NO_CONTENT], reconnection=patient()) as (_, source):
        assert await anext(source, None) is None
        assert source.reconnection_time == 30


async def test_block_over_the_limit_ends_the_iteration_after_the_good_blocks() -> None:
    body = b"id: 1\ndata: a\n\ndata: b\n\n" + b"data: " + b"x" * 100 + b"\n\ndata: c\n\n"
    async with following([stream(body), Silence()], max_block_bytes=50) as (upstream, source):
        assert [(await anext(source)).data, (await anext(source)).data] == ["a", "b"]
        with pytest.raises(BlockTooLarge, match="event block reached 108 bytes, limit is 50"):
            await anext(source)
        assert (source.state, source.last_error) == ("closed", "event block reached 108 bytes, limit is 50")
        assert await anext(source, None) is None
        await upstream.requests[0].left.wait()


async def test_one_line_of_16_mib_passes_when_the_limit_allows_it() -> None:
    size = 16 * 1024 * 1024
    async with following([stream(b"data: " + b"x" * size + b"\n\n"), Silence()], max_block_bytes=size + 100) as (_, source):
        assert len((await anext(source)).data) == size
        assert source.bytes_received == size + 8


async def test_stalled_iteration_stalls_the_server() -> None:
    block = b"data: " + b"x" * 1000 + b"\n\n"
    async with following([EVENT_STREAM_HEAD, Flood(block)]) as (upstream, source):
        await anext(source)
        assert source._body is not None
        content = source._body.response.content
        before = -1
        while before != upstream.sent_bytes:  # until neither side moves any more
            before = upstream.sent_bytes
            await asyncio.sleep(0.1)
        assert content.total_bytes < 512 * 1024
        for _ in range(2 * before // len(block)):
            await anext(source)
        assert upstream.sent_bytes > before


async def test_stream_that_the_server_compressed_unasked_is_read() -> None:
    body = gzip.compress(b"id: 1\ndata: a\n\ndata: b\n\n")
    cut = Pause()
    async with (
        aiohttp.ClientSession(auto_decompress=True) as session,
        following([coded() + chunk(body[:-4]), cut, Disconnect()], [NO_CONTENT], session=session) as (_, source),
    ):
        assert [(await anext(source)).data, (await anext(source)).data] == ["a", "b"]
        cut.go()
        assert await anext(source, None) is None


def coded(*bodies: bytes) -> bytes:
    """Return an event stream in the coding gzip, whose members each come in an HTTP chunk of their own."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(chunk(gzip.compress(body)) for body in bodies)


async def test_compressed_stream_that_is_reset_yields_the_events_before() -> None:
    came = Pause()
    async with following([coded(b"data: a\n\n", b"", b"data: b\n\n"), came, Disconnect(reset=True)], [NO_CONTENT]) as (_, source):
        assert (await anext(source)).data == "a"
        assert repr(source._body).startswith("<Body <StreamReader")
        came.go()
        assert [event.data async for event in source] == ["b"]


async def test_stream_that_does_not_match_its_coding_counts_as_lost() -> None:
    async with following([coded(b"data: a\n\n") + chunk(b"garbage"), Silence()], [NO_CONTENT]) as (_, source):
        assert (await anext(source)).data == "a"
        changes: list[str | None] = []
        source._on_change = lambda source: changes.append(source.last_error)
        assert await anext(source, None) is None
        assert (changes[0] or "").startswith("the body is not gzip or deflate: ")


async def test_bomb_is_final_after_the_events_before_it() -> None:
    bomb = zstandard.ZstdCompressor().compress(b"data: a\n\n" + bytes(20 * 2**20))
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: zstd\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with following([head + chunk(bomb), Silence()], max_block_bytes=64 * 2**20) as (upstream, source):
        assert (await anext(source)).data == "a"
        with pytest.raises(DecodedTooLarge):
            await anext(source)
        assert (source.state, len(upstream.requests)) == ("closed", 1)


async def test_waiting_for_an_event_of_a_compressed_stream_can_be_cancelled_and_resumed() -> None:
    events = [b"data: %d\n\n" % number for number in range(20_000)]
    async with following([coded(*events[:9], b"".join(events[9:])), Silence()]) as (_, source):
        got = [await anext(source)]
        while len(got) < len(events):
            event = await _soon(source)
            got += [event] if event is not None else []
        assert [event.data for event in got] == [str(number) for number in range(len(events))]


async def _soon(source: EventSource) -> Event | None:
    """Return the next event if it comes within three turns of the event loop."""
    task = asyncio.ensure_future(anext(source))
    for _ in range(3):
        await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        return await task
    return None


async def test_event_source_works_without_async_with() -> None:
    async with ScriptedUpstream([stream(b"data: a\n\n"), Silence()]) as upstream:
        source = EventSource(upstream.url, reconnection=at_once())
        assert (await anext(source)).data == "a"
        await source.close()


async def test_closing_afterwards_keeps_the_reason_of_a_failure() -> None:
    async with following([answer(404)]) as (upstream, source):
        with pytest.raises(ConnectionFailed):
            await anext(source)
    assert source.last_error == f"{upstream.url}: status must be 200 for an event stream, got 404"


async def test_closing_before_the_first_step_is_no_error() -> None:
    source = EventSource("http://127.0.0.1:9/")
    await source.close()
    assert await anext(source, None) is None


async def test_tap_gets_each_chunk_with_the_blocks_that_it_completes() -> None:
    more = Pause()
    async with following([stream(b"data: a\n\nda"), more, chunk(b"ta: b\n\n"), Disconnect()], [NO_CONTENT]) as (_, source):
        tapped: list[tuple[bytes, bytes, int]] = []
        source.tap = lambda *fed: tapped.append(fed)
        await anext(source)
        more.go()
        await anext(source)
        source.tap = None
        assert await anext(source, None) is None
    assert tapped == [(b"data: a\n\nda", b"data: a\n\n", 2), (b"ta: b\n\n", b"data: b\n\n", 0)]


async def test_headers_may_be_a_function_called_for_each_attempt() -> None:
    numbers = iter(range(1, 4))
    scripts = [stream(b"data: 1\n\n"), Disconnect()], [answer(503)], [NO_CONTENT]
    async with following(*scripts, headers=lambda: {"X-Attempt": str(next(numbers)), "Accept": "text/event-stream, */*"}) as (
        upstream,
        source,
    ):
        assert [event.data async for event in source] == ["1"]
        assert [asked.header("X-Attempt") for asked in upstream.requests] == ["1", "2", "3"]
        assert {asked.header("Accept") for asked in upstream.requests} == {"text/event-stream, */*"}
        assert {asked.header("Cache-Control") for asked in upstream.requests} == {"no-cache"}
        assert (source.blocks_received, source.bytes_received) == (1, 9)
