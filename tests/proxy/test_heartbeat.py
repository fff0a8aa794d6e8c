"""A silent event stream gets comment lines, between blocks and nowhere else."""

import asyncio
from collections.abc import Callable

import pytest

from tests.kit.downstream import End
from tests.kit.upstream import Act, Pause, Script, chunk
from tests.proxy.concurrently import all_hold
from tests.proxy.conftest import Converse
from tests.proxy.streams import HEAD, LAST_CHUNK, THREE_EVENTS, whole_blocks

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("gateway")]

BEAT = b":\n\n"
"""A block of its own: clients that split at blank lines lose an event that follows a bare comment line."""
BEAT_BEHIND_AN_ID = b":\n"
"""No block: after an ID, OpenAI's SDK fails on a block without data."""


def beats_after(received: bytes, blocks: bytes) -> int:
    """Count the heartbeats that follow `blocks`; nothing else may follow."""
    assert received.startswith(blocks)
    beat = BEAT_BEHIND_AN_ID if b"id: 1" in blocks else BEAT
    beats = len(received[len(blocks) :]) // len(beat)
    assert received == blocks + beats * beat
    return beats


@pytest.mark.parametrize("style", THREE_EVENTS)
async def test_heartbeat_comes_wherever_the_upstream_falls_silent(converse: Converse, style: str) -> None:
    stream = THREE_EVENTS[style]

    async def silent_after(cut: int) -> None:
        pause = Pause()
        first = chunk(stream[:cut]) if cut else b""
        async with converse(HEAD + first, pause, chunk(stream[cut:]), LAST_CHUNK, target="/heartbeat") as talk:
            answer = await talk.answer()
            blocks = whole_blocks(stream[:cut])
            beats = beats_after(await answer.receive(len(blocks) + 3), blocks)
            assert beats >= 1
            pause.go()
            # further heartbeats may have come before the rest on a slow machine, but none inside it
            body = await answer.to_end()
            rest = stream[len(blocks) :]
            assert body.endswith(rest)
            assert beats_after(body.removesuffix(rest), blocks) >= beats
            assert answer.end is End.COMPLETE

    await all_hold({f"silent after byte {cut}": silent_after(cut) for cut in range(len(stream))})


async def test_heartbeats_repeat_while_the_silence_lasts(converse: Converse) -> None:
    pause = Pause()
    loop = asyncio.get_running_loop()
    begun = loop.time()
    async with converse(HEAD, pause, LAST_CHUNK, target="/heartbeat") as talk:
        answer = await talk.answer()
        body = await answer.receive(4 * len(BEAT))
        seconds = loop.time() - begun
        assert beats_after(body, b"") >= 4  # a busy machine may read more at once
        assert seconds > 0.75
        pause.go()
        assert (await answer.to_end()).replace(BEAT, b"") == b""
        assert answer.end is End.COMPLETE


async def test_heartbeats_come_while_a_large_block_is_arriving(converse: Converse) -> None:
    """The part that has arrived is held back, so the client gets nothing else."""
    beaten = asyncio.Event()

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not beaten.is_set():
            writer.write(chunk(b"x" * 10_000))
            await writer.drain()
            await asyncio.sleep(0.02)
        writer.write(chunk(b"\n\n") + LAST_CHUNK)

    async with converse(HEAD, chunk(b"data: 1\n\ndata: "), Act(trickle), target="/heartbeat") as talk:
        answer = await talk.answer()
        assert beats_after(await answer.receive(9 + 3 * len(BEAT)), b"data: 1\n\n") >= 3
        beaten.set()
        body = await answer.to_end()
        beats, _, block = body.removeprefix(b"data: 1\n\n").partition(b"data: ")
        assert beats == len(beats) // len(BEAT) * BEAT
        assert block.strip(b"x") == b"\n\n"
        assert answer.end is End.COMPLETE


@pytest.mark.parametrize(
    ("target", "fields"),
    [("/heartbeat", [("Last-Event-ID", "7")]), ("/heartbeat?lastEventId=7", []), ("/heartbeat", [("Last-Event-ID", "")])],
    ids=["header", "query", "empty"],
)
async def test_resumed_stream_begins_like_one_that_has_sent_an_id(converse: Converse, target: str, fields: list[tuple[str, str]]) -> None:
    async with converse(HEAD, Pause(), target=target, headers=fields) as talk:
        beat = BEAT if fields and not fields[0][1] else BEAT_BEHIND_AN_ID
        body = await (await talk.answer()).receive(3 * len(beat))
        assert body == len(body) // len(beat) * beat


@pytest.mark.parametrize("block", [b"id\ndata: 1\n\n", b"id: 7\0\ndata: 1\n\n", b'data: {"id": 7}\n\n', b"identity: 7\ndata: 1\n\n"])
async def test_block_without_an_id_makes_no_difference(converse: Converse, block: bytes) -> None:
    async with converse(HEAD, chunk(block), Pause(), target="/heartbeat") as talk:
        answer = await talk.answer()
        assert (await answer.receive(len(block) + len(BEAT))).startswith(block + BEAT)


def skips_comment_blocks(stream: bytes) -> list[bytes]:
    """Return the events of a client that splits at blank lines and skips blocks that begin with a comment, as simple clients do."""
    return [block.partition(b"data: ")[2] for block in stream.split(b"\n\n")[:-1] if not block.startswith(b":")]


def takes_blocks_of_data(stream: bytes) -> list[bytes]:
    """Return the events of a client that splits at blank lines and takes blocks that begin with data."""
    return [block.removeprefix(b"data: ") for block in stream.split(b"\n\n")[:-1] if block.startswith(b"data: ")]


@pytest.mark.parametrize("client", [skips_comment_blocks, takes_blocks_of_data])
async def test_client_that_splits_at_blank_lines_loses_no_event_to_a_heartbeat(
    converse: Converse, client: Callable[[bytes], list[bytes]]
) -> None:
    pauses = [Pause() for _ in range(5)]
    steps = [step for number, pause in enumerate(pauses) for step in (pause, chunk(b"data: %d\n\n" % number))]
    async with converse(HEAD, *steps, LAST_CHUNK, target="/heartbeat") as talk:
        answer = await talk.answer()
        for number, pause in enumerate(pauses):
            await answer.receive_until(lambda body, sent=number: body.count(b"data") == sent and body.endswith(BEAT))
            pause.go()
        body = await answer.to_end()
    assert body.count(b":\n") >= 5
    assert client(body) == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("cut", range(8))
async def test_byte_order_mark_after_a_heartbeat_is_dropped(converse: Converse, cut: int) -> None:
    """A browser strips a mark only from the first bytes; after a heartbeat it would lose the first event. The second mark is content."""
    mark, pause = b"\xef\xbb\xbf", Pause()
    stream = mark + mark + b"data: 1\n\n"
    async with converse(HEAD + (chunk(stream[:cut]) if cut else b""), pause, chunk(stream[cut:]), LAST_CHUNK, target="/heartbeat") as talk:
        answer = await talk.answer()
        await answer.receive(1)
        pause.go()
        assert (await answer.to_end()).lstrip(b":\n") == stream[3:]


async def test_busy_stream_gets_no_heartbeat(converse: Converse) -> None:
    """Send blocks ten times as often as heartbeats. A run in which the machine stalled proves nothing and is repeated."""
    loop = asyncio.get_running_loop()
    for _ in range(5):
        longest = 0.0

        async def keep_busy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal longest
            for _ in range(25):
                begun = loop.time()
                writer.write(chunk(b"data: x\n\n"))
                await asyncio.sleep(0.1)
                longest = max(longest, loop.time() - begun)

        async with converse(HEAD, Act(keep_busy), LAST_CHUNK, target="/slow-heartbeat") as talk:
            answer = await talk.answer()
            body = await answer.to_end()
        if longest < 0.5:
            assert body == b"data: x\n\n" * 25
            return
    pytest.fail("the machine stalled for half a second in each of five runs")


async def test_route_without_heartbeat_gets_none(converse: Converse) -> None:
    """The heartbeats of another stream show that the time for them has come."""
    pause = Pause()
    async with converse(HEAD, pause, LAST_CHUNK) as quiet, converse(HEAD, Pause(), target="/heartbeat") as beating:
        answer = await quiet.answer()
        await (await beating.answer()).receive(4 * len(BEAT))
        pause.go()
        assert await answer.to_end() == b""


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_other_content_types_get_no_heartbeat(converse: Converse, method: str) -> None:
    pause = Pause()
    head = HEAD.replace(b"text/event-stream", b"text/plain")
    other = converse(head, chunk(b"part "), pause, chunk(b"rest"), LAST_CHUNK, target="/heartbeat", method=method)
    async with other as talk, converse(HEAD, Pause(), target="/heartbeat") as beating:
        answer = await talk.answer()
        await (await beating.answer()).receive(4 * len(BEAT))
        pause.go()
        assert await answer.to_end() == b"part rest"


async def test_no_heartbeat_comes_before_the_head_or_after_the_end(converse: Converse) -> None:
    before = Pause()
    script: Script = [before, HEAD, chunk(b"data: x\n\n"), LAST_CHUNK]
    async with converse(*script, target="/heartbeat") as talk, converse(HEAD, Pause(), target="/heartbeat") as beating:
        clock = await beating.answer()
        await clock.receive(3 * len(BEAT))
        before.go()
        answer = await talk.answer()
        assert await answer.to_end() == b"data: x\n\n"
        await clock.receive(6 * len(BEAT))
        await talk.downstream.ask("/heartbeat", headers=talk.scene.headers)  # the connection stays open, with nothing in between
        assert (await talk.answer()).head.status == 200


async def test_answer_to_head_gets_no_heartbeat(converse: Converse) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    async with converse(head, target="/heartbeat", method="HEAD") as talk, converse(HEAD, Pause(), target="/heartbeat") as beating:
        assert (await talk.answer()).end is End.COMPLETE
        await (await beating.answer()).receive(3 * len(BEAT))
        await talk.downstream.ask("/heartbeat", "HEAD", talk.scene.headers)
        assert (await talk.answer()).head.status == 200
