"""An upstream that dies mid-stream never looks as if it had finished."""

import json
from functools import partial

import pytest

from tests.kit.downstream import End
from tests.kit.upstream import Disconnect, Pause, Silence, chunk
from tests.proxy.concurrently import all_hold
from tests.proxy.conftest import SMALL_BLOCK_BYTES, Converse
from tests.proxy.streams import HEAD, LAST_CHUNK, THREE_EVENTS, dechunked, whole_blocks

pytestmark = pytest.mark.asyncio(loop_scope="session")

STYLES = pytest.mark.parametrize("style", THREE_EVENTS)
ABORTED = (End.CUT_SHORT, End.RESET)


def beat_after(blocks: int, body: bytes) -> bool:
    """Whether a heartbeat has followed that number of blocks."""
    return body.count(b": x\n\n") == blocks and body.endswith(b"\n:\n\n")


def error_in(received: bytes, blocks: bytes) -> dict[str, object]:
    """Return the JSON of the one error event that follows `blocks`."""
    assert received.startswith(blocks)
    lines = received[len(blocks) :].decode().split("\n")
    # a blank line may come first: it separates an error event from a CR whose LF never came
    fields = [line.partition(": ") for line in lines if line]
    assert lines[-2:] == ["", ""]
    assert [name for name, _, _ in fields] == ["data", "event"]
    assert fields[1][2] == "error"
    parsed = json.loads(fields[0][2])
    assert isinstance(parsed, dict)
    assert parsed["message"].startswith("Upstream lost: ")
    return parsed


async def dies(converse: Converse, wire: bytes, expected: bytes, disconnect: Disconnect, target: str = "/plain") -> None:
    """Let the upstream send `wire` and die: the client gets `expected` and an aborted connection."""
    pause = Pause()
    async with converse(HEAD, wire, pause, disconnect, target=target) as talk:
        answer = await talk.answer()
        await pause.reached.wait()
        await answer.receive(len(expected))
        pause.go()
        assert await answer.to_end() == expected
        assert answer.end in ABORTED


def wire_cuts(style: str) -> dict[int, tuple[bytes, bytes]]:
    """Return, for three events of a chunk each, by offset the bytes on the wire and those due to the client."""
    stream = THREE_EVENTS[style]
    half, most = len(stream) // 3, len(stream) * 2 // 3
    wire = chunk(stream[:half]) + chunk(stream[half:most]) + chunk(stream[most:])
    return {cut: (wire[:cut], whole_blocks(dechunked(wire[:cut]))) for cut in range(len(wire) + 1)}


@STYLES
@pytest.mark.parametrize("disconnect", [Disconnect(), Disconnect(reset=True)], ids=["FIN", "RST"])
async def test_upstream_killed_at_any_offset_aborts_after_the_last_whole_block(
    converse: Converse, style: str, disconnect: Disconnect
) -> None:
    cases = wire_cuts(style).items()
    await all_hold({f"killed after byte {cut}": dies(converse, wire, due, disconnect) for cut, (wire, due) in cases})


@pytest.mark.parametrize("disconnect", [Disconnect(), Disconnect(reset=True)], ids=["FIN", "RST"])
async def test_upstream_killed_between_blocks_never_looks_complete(converse: Converse, disconnect: Disconnect) -> None:
    await dies(converse, chunk(b"data: 1\n\n"), b"data: 1\n\n", disconnect)


async def test_upstream_killed_in_the_same_packet_as_its_last_block_delivers_it(converse: Converse) -> None:
    async def one(wire: bytes, due: bytes) -> None:
        async with converse(HEAD + wire, Disconnect()) as talk:
            answer = await talk.answer()
            assert await answer.to_end() == due
            assert answer.end in ABORTED

    await all_hold({f"killed after byte {cut}": one(wire, due) for cut, (wire, due) in wire_cuts("LF").items()})


async def test_upstream_that_breaks_its_content_length_is_lost(converse: Converse) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 500\r\n\r\n"
    async with converse(head, b"data: 1\n\ndata: 2", Disconnect()) as talk:
        answer = await talk.answer()
        assert await answer.to_end() == b"data: 1\n\n"
        assert answer.end in ABORTED


async def test_reset_ends_a_stream_that_only_the_connection_delimits(converse: Converse) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    pause = Pause()
    async with converse(head, b"data: 1\n\ndata: 2", pause, Disconnect(reset=True)) as talk:
        answer = await talk.answer()
        await answer.receive(9)
        pause.go()
        assert await answer.to_end() == b"data: 1\n\n"
        assert answer.end in ABORTED


@pytest.mark.parametrize(
    "bad", [b"zz\r\nx\r\n", b"-5\r\nhello\r\n", b"0x5\r\nhello\r\n", b"\r\n\r\n", b"5 5\r\nhello\r\n", b"f" * 17 + b"\r\n"]
)
async def test_bad_chunk_size_ends_the_stream_aborted(converse: Converse, bad: bytes) -> None:
    pause = Pause()
    async with converse(HEAD, chunk(b"data: good\n\n"), pause, bad, Silence()) as talk:
        answer = await talk.answer()
        assert await answer.receive(12) == b"data: good\n\n"
        pause.go()
        assert await answer.to_end() == b"data: good\n\n"
        assert answer.end in ABORTED
        await talk.scene.left()


async def test_chunk_longer_than_its_size_ends_the_stream_aborted(converse: Converse) -> None:
    pause = Pause()
    async with converse(HEAD, chunk(b"data: good\n\n"), pause, b"3\r\n:\n\n\n\n\n\n", Silence()) as talk:
        answer = await talk.answer()
        pause.go()
        assert (await answer.to_end()).startswith(b"data: good\n\n")
        assert answer.end in ABORTED


@pytest.mark.parametrize("content_type", [b"text/plain", b"application/json"])
async def test_cut_short_answer_of_any_type_is_aborted(converse: Converse, content_type: bytes) -> None:
    head = HEAD.replace(b"text/event-stream", content_type)
    async with converse(head, chunk(b"part"), Disconnect()) as talk:
        answer = await talk.answer()
        assert await answer.to_end() == b"part"
        assert answer.end in ABORTED


@STYLES
async def test_error_event_reports_an_upstream_killed_at_any_offset(converse: Converse, gateway: None, style: str) -> None:
    async def told(wire: bytes, due: bytes) -> None:
        async with converse(HEAD, wire, Disconnect(), target="/error-event") as talk:
            answer = await talk.answer()
            error_in(await answer.to_end(), due)
            assert answer.end is End.COMPLETE

    await all_hold({f"killed after byte {cut}": told(wire, due) for cut, (wire, due) in wire_cuts(style).items()})


async def test_error_event_reports_a_block_over_the_limit(converse: Converse, gateway: None) -> None:
    too_large = chunk(b"data: 1\n\ndata: " + b"x" * 2 * SMALL_BLOCK_BYTES)
    async with converse(HEAD, too_large, Pause(), target="/error-event/small-blocks") as talk:
        answer = await talk.answer()
        error = error_in(await answer.to_end(), b"data: 1\n\n")
        assert answer.end is End.COMPLETE
        assert str(SMALL_BLOCK_BYTES) in json.dumps(error)


async def test_error_event_is_not_sent_at_a_clean_end(converse: Converse, gateway: None) -> None:
    async with converse(HEAD, chunk(b"data: 1\n\ndata: 2"), LAST_CHUNK, target="/error-event") as talk:
        answer = await talk.answer()
        assert await answer.to_end() == b"data: 1\n\ndata: 2"
        assert answer.end is End.COMPLETE


async def test_error_event_reports_a_connection_that_ends_within_a_line(converse: Converse, gateway: None) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    async with converse(head, b"data: 1\n\ndata: 2", Disconnect(), target="/error-event") as talk:
        answer = await talk.answer()
        error = error_in(await answer.to_end(), b"data: 1\n\n")
        assert answer.end is End.COMPLETE
        assert "in the middle of a line" in json.dumps(error)


async def test_error_event_is_only_for_event_streams(converse: Converse, gateway: None) -> None:
    head = HEAD.replace(b"text/event-stream", b"text/plain")
    async with converse(head, chunk(b"part"), Disconnect(), target="/error-event") as talk:
        answer = await talk.answer()
        assert await answer.to_end() == b"part"
        assert answer.end in ABORTED


async def test_connection_serves_the_next_request_after_an_error_event(converse: Converse, gateway: None) -> None:
    async with converse(HEAD, chunk(b"data: 1\n\n"), Disconnect(), target="/error-event") as talk:
        error_in(await (await talk.answer()).to_end(), b"data: 1\n\n")
        await talk.downstream.ask("/error-event", headers=talk.scene.headers)
        error_in(await (await talk.answer()).to_end(), b"data: 1\n\n")


async def test_silent_upstream_is_lost_after_the_idle_timeout(converse: Converse, gateway: None) -> None:
    async with converse(HEAD, chunk(b"data: 1\n\ndata: unfinished"), Silence(), target="/idle") as talk:
        answer = await talk.answer()
        assert (await answer.to_end()).replace(b":\n\n", b"") == b"data: 1\n\n"
        assert answer.end in ABORTED
        await talk.scene.left()


async def test_error_event_reports_the_idle_timeout(converse: Converse, gateway: None) -> None:
    async with converse(HEAD, chunk(b"data: 1\n\n"), Silence(), target="/error-event/idle") as talk:
        answer = await talk.answer()
        error_in(await answer.to_end(), b"data: 1\n\n")
        assert answer.end is End.COMPLETE


async def test_upstream_that_keeps_sending_is_not_idle(converse: Converse, gateway: None) -> None:
    pauses = [Pause() for _ in range(9)]
    steps = [step for pause in pauses for step in (chunk(b": x\n\n"), pause)]
    async with converse(HEAD, *steps, LAST_CHUNK, target="/idle") as talk:
        answer = await talk.answer()
        for number, pause in enumerate(pauses, 1):
            # the next block after a heartbeat: 9 × 0.2 s are longer than the timeout, one is not
            await answer.receive_until(partial(beat_after, number))
            pause.go()
        assert (await answer.to_end()).replace(b"\n:\n\n", b"\n") == b": x\n\n" * 9
        assert answer.end is End.COMPLETE


async def test_request_right_after_an_aborted_one_is_served(converse: Converse) -> None:
    for _ in range(5):
        async with converse(HEAD, chunk(b"data: 1\n\n"), Disconnect(reset=True)) as talk:
            answer = await talk.answer()
            await answer.to_end()
            assert answer.end in ABORTED
        async with converse(HEAD, chunk(b"data: 2\n\n"), LAST_CHUNK) as talk:
            assert await (await talk.answer()).to_end() == b"data: 2\n\n"


async def test_http_1_0_client_gets_no_chunked_coding(converse: Converse) -> None:
    async with converse(HEAD, chunk(b"data: 1\n\n"), LAST_CHUNK, version="1.0") as talk:
        answer = await talk.answer()
        assert answer.head.value("Transfer-Encoding") is None
        assert await answer.to_end() == b"data: 1\n\n"
        assert answer.end is End.CLOSED


@pytest.mark.parametrize("disconnect", [Disconnect(), Disconnect(reset=True)], ids=["FIN", "RST"])
@pytest.mark.parametrize("part", [b"", b"data: 1\n\n", b"data: 1\n\ndata: 2"])
async def test_http_1_0_client_is_reset_when_the_upstream_is_lost(
    converse: Converse, gateway: None, part: bytes, disconnect: Disconnect
) -> None:
    pause = Pause()
    async with converse(HEAD, chunk(part) if part else b"", pause, disconnect, version="1.0") as talk:
        answer = await talk.answer()
        await answer.receive(len(whole_blocks(part)))
        pause.go()
        assert await answer.to_end() == whole_blocks(part)
        assert answer.end is End.RESET
