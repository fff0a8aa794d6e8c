"""Event streams pass byte for byte, whole blocks only, and at once."""

import random

import pytest

from tests.kit.downstream import End
from tests.kit.upstream import Disconnect, Pause, Silence, Step, chunk
from tests.proxy.concurrently import all_hold
from tests.proxy.conftest import Converse
from tests.proxy.streams import HEAD, LAST_CHUNK, THREE_EVENTS, numbered_blocks, whole_blocks

pytestmark = pytest.mark.asyncio(loop_scope="session")

STYLES = pytest.mark.parametrize("style", THREE_EVENTS)
MIB = 2**20
MARK = b"\xef\xbb\xbf"


def with_length(body: bytes) -> bytes:
    """Return the head of an event stream with its length, as a server sends it that has the whole body."""
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % len(body)


UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


async def pauses_at(converse: Converse, stream: bytes, cut: int, framing: str) -> None:
    """Pause the upstream after `cut` bytes: exactly the whole blocks have arrived, and the rest follows."""
    pause = Pause()
    first, rest = stream[:cut], stream[cut:]
    scripts: dict[str, list[Step]] = {
        "chunked": [HEAD, chunk(first), pause, chunk(rest), LAST_CHUNK],
        "length": [with_length(stream), first, pause, rest],
        "close": [UNTIL_CLOSE, first, pause, rest, Disconnect()],
    }
    async with converse(*scripts[framing]) as talk:
        answer = await talk.answer()
        whole = whole_blocks(first)
        await pause.reached.wait()
        assert await answer.receive(len(whole)) == whole
        pause.go()
        assert await answer.to_end() == stream
        assert answer.end is End.COMPLETE


@STYLES
@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
async def test_whole_blocks_arrive_at_once_wherever_the_upstream_pauses(converse: Converse, style: str, framing: str) -> None:
    stream = THREE_EVENTS[style]
    await all_hold({f"pause after byte {cut}": pauses_at(converse, stream, cut, framing) for cut in range(1, len(stream))})


@STYLES
async def test_every_byte_in_a_chunk_of_its_own_passes(converse: Converse, style: str) -> None:
    stream = THREE_EVENTS[style]
    async with converse(HEAD, *(chunk(bytes([byte])) for byte in stream), LAST_CHUNK) as talk:
        answer = await talk.answer()
        assert await answer.to_end() == stream
        assert answer.end is End.COMPLETE


async def test_chunks_cut_anywhere_do_not_matter(converse: Converse) -> None:
    async def passes(seed: int) -> None:
        dice = random.Random(seed)
        stream = b"".join(dice.choice(list(THREE_EVENTS.values())) for _ in range(dice.randint(1, 30)))
        cuts = sorted(dice.sample(range(1, len(stream)), dice.randint(0, 20)))
        chunks = [chunk(stream[begin:end]) for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
        wire = b"".join([HEAD, *chunks, LAST_CHUNK])
        writes = sorted(dice.sample(range(1, len(wire)), 20))
        steps = [wire[begin:end] for begin, end in zip([0, *writes], [*writes, len(wire)], strict=True)]
        async with converse(*steps) as talk:
            answer = await talk.answer()
            assert await answer.to_end() == stream
            assert answer.end is End.COMPLETE

    await all_hold({f"seed {seed}": passes(seed) for seed in range(60)})


async def test_many_events_in_one_chunk_pass(converse: Converse) -> None:
    stream = numbered_blocks(0, 2000)
    async with converse(HEAD, chunk(stream), LAST_CHUNK) as talk:
        assert await (await talk.answer()).to_end() == stream


async def test_chunk_extensions_and_leading_zeros_are_understood(converse: Converse) -> None:
    async with converse(HEAD, b'00b;name="va;lue"\r\ndata: one\n\n\r\n', LAST_CHUNK) as talk:
        answer = await talk.answer()
        assert await answer.to_end() == b"data: one\n\n"
        assert answer.end is End.COMPLETE


@pytest.mark.parametrize(
    "block",
    [
        b": only a comment\n\n",
        b"data\n\n",
        b"data:\n\n",
        b"data: \x00 in the middle\x00\n\n",
        b"id: with\x00nul\ndata: x\n\n",
        b"data: \xff\xfe\xc3( is not UTF-8\n\n",
        b"data: \xef\xbb\xbf a byte order mark inside\n\n",
        b"\xe4\xb8\x83: a field of no name\n\n",
        b"unknown: field\nanother\n: comment\ndata: x\n\n",
        b"id: 1\n\n",
        b"retry: 1000\n\n",
        b"event: nothing\n\n",
        b"data: [DONE]\n\n",
        b"data: \x85 \xe2\x80\xa8 \x0b \x0c \x1c \x1e are no line ends\n\n",
        b"\n\n\n\ndata: blank lines before\n\n\n\n\r\n\r\r",
        b"data:" + b" " * 5000 + b"\n\n",
    ],
)
async def test_unusual_blocks_pass_untouched(converse: Converse, block: bytes) -> None:
    stream = b"data: before\n\n" + block + b"data: after\n\n"
    async with converse(HEAD, chunk(stream), LAST_CHUNK) as talk:
        answer = await talk.answer()
        assert await answer.to_end() == stream
        assert answer.end is End.COMPLETE


@pytest.mark.parametrize("cut", [1, 2, 3, 4])
async def test_byte_order_marks_pass_wherever_they_are_cut(converse: Converse, cut: int) -> None:
    marked = MARK + MARK + b"data: the second mark is content\n\n" + MARK + b"data: so is this\n\n"
    async with converse(HEAD, chunk(marked[:cut]), chunk(marked[cut:]), LAST_CHUNK) as talk:
        answer = await talk.answer()
        assert await answer.to_end() == marked
        assert answer.end is End.COMPLETE


@pytest.mark.parametrize("body", [b"", MARK, MARK[:2], MARK + MARK, b"\n", b"data: unfinished", b"data: unfinished\n"])
async def test_stream_without_a_whole_block_ends_cleanly_with_what_it_has(converse: Converse, body: bytes) -> None:
    async with converse(HEAD, chunk(body) if body else b"", LAST_CHUNK) as talk:
        answer = await talk.answer()
        assert await answer.to_end() == body
        assert answer.end is End.COMPLETE


@STYLES
@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
async def test_unfinished_block_at_a_clean_end_passes(converse: Converse, style: str, framing: str) -> None:
    """Except where only the connection's end delimits the body and comes within a line: that cannot be distinguished from a cut."""

    async def ends_at(cut: int) -> None:
        part = THREE_EVENTS[style][:cut]
        scripts: dict[str, list[Step]] = {
            "chunked": [HEAD, chunk(part), LAST_CHUNK],
            "length": [with_length(part), part],
            "close": [UNTIL_CLOSE, part, Disconnect()],
        }
        torn = framing == "close" and not part.endswith((b"\n", b"\r"))
        async with converse(*scripts[framing]) as talk:
            answer = await talk.answer()
            assert await answer.to_end() == (whole_blocks(part) if torn else part)
            assert answer.end in ((End.CUT_SHORT, End.RESET) if torn else (End.COMPLETE,))

    await all_hold({f"end after byte {cut}": ends_at(cut) for cut in range(1, len(THREE_EVENTS[style]))})


def block_of(size: int, end: bytes = b"\n") -> bytes:
    return b"data: " + b"x" * (size - 6 - 2 * len(end)) + 2 * end


async def test_block_of_8_mib_passes(converse: Converse) -> None:
    block = block_of(8 * MIB)
    stream = b"data: before\n\n" + block + b"data: after\n\n"
    pieces = [chunk(stream[at : at + 100_000]) for at in range(0, len(stream), 100_000)]
    async with converse(HEAD, *pieces, LAST_CHUNK) as talk:
        answer = await talk.answer()
        assert await answer.to_end(timeout=30) == stream
        assert answer.end is End.COMPLETE


async def test_block_of_8_mib_and_one_byte_ends_the_stream_after_the_blocks_before_it(converse: Converse, gateway: None) -> None:
    stream = b"data: before\n\n" + block_of(8 * MIB + 1) + b"data: after\n\n"
    pieces = [chunk(stream[at : at + 100_000]) for at in range(0, len(stream), 100_000)]
    async with converse(HEAD, *pieces, Silence()) as talk:
        answer = await talk.answer()
        assert await answer.to_end(timeout=30) == b"data: before\n\n"
        assert answer.end in (End.CUT_SHORT, End.RESET)
        await talk.scene.left()


@pytest.mark.parametrize("chunk_size", [1, 7, 999, 5000])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
async def test_limit_of_a_route_is_exact(converse: Converse, gateway: None, end: bytes, chunk_size: int) -> None:
    async def outcome(size: int) -> tuple[bytes, End | None]:
        stream = b"data: before\n\n" + block_of(size, end) + b"data: after\n\n"
        pieces = [chunk(stream[at : at + chunk_size]) for at in range(0, len(stream), chunk_size)]
        async with converse(HEAD, b"".join(pieces), LAST_CHUNK, target="/small-blocks") as talk:
            answer = await talk.answer()
            return await answer.to_end(), answer.end

    at_limit = b"data: before\n\n" + block_of(1000, end) + b"data: after\n\n"
    assert await outcome(1000) == (at_limit, End.COMPLETE)
    received, how = await outcome(1000 + len(end))
    assert received == b"data: before\n\n"
    assert how in (End.CUT_SHORT, End.RESET)


async def test_endless_block_is_cut_off_while_it_is_still_growing(converse: Converse, gateway: None) -> None:
    async with converse(HEAD, chunk(b"data: before\n\ndata: " + b"x" * 2000), Pause(), target="/small-blocks") as talk:
        answer = await talk.answer()
        assert await answer.to_end() == b"data: before\n\n"
        assert answer.end in (End.CUT_SHORT, End.RESET)


@pytest.mark.parametrize(
    "content_type", ["text/event-stream", "text/event-stream; charset=utf-8", "Text/Event-Stream", "text/event-stream;charset=UTF-8"]
)
async def test_content_type_is_recognised_and_kept(converse: Converse, gateway: None, content_type: str) -> None:
    head = HEAD.replace(b"text/event-stream", content_type.encode())
    pause = Pause()
    async with converse(head, chunk(b"data: whole\n\ndata: unfinished"), pause, LAST_CHUNK) as talk:
        answer = await talk.answer()
        assert answer.head.value("Content-Type") == content_type
        assert await answer.receive(1) == b"data: whole\n\n"
        pause.go()
        assert await answer.to_end() == b"data: whole\n\ndata: unfinished"


async def test_other_content_types_are_not_cut_at_blocks(converse: Converse) -> None:
    head = HEAD.replace(b"text/event-stream", b"text/plain")
    pause = Pause()
    async with converse(head, chunk(b"half a li"), pause, chunk(b"ne"), LAST_CHUNK) as talk:
        answer = await talk.answer()
        assert await answer.receive(9) == b"half a li"
        pause.go()
        assert await answer.to_end() == b"half a line"
