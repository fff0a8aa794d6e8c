"""A silent event stream gets comment lines, between blocks and nowhere else."""

import asyncio

import pytest

from tests.proxy.concurrently import all_hold
from tests.proxy.conftest import Converse
from tests.proxy.downstream import End
from tests.proxy.streams import HEAD, LAST_CHUNK, THREE_EVENTS, whole_blocks
from tests.scripted_upstream import Act, Pause, Script, chunk

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("gateway")]

BEAT = b":\n"


def beats_after(received: bytes, blocks: bytes) -> int:
    """Counts the heartbeats that follow `blocks`; there must be nothing else."""
    assert received.startswith(blocks)
    beats = len(received[len(blocks) :]) // 2
    assert received == blocks + beats * BEAT
    return beats


@pytest.mark.parametrize("style", THREE_EVENTS)
async def test_heartbeat_comes_wherever_upstream_falls_silent(converse: Converse, style: str) -> None:
    stream = THREE_EVENTS[style]

    async def silent_after(cut: int) -> None:
        pause = Pause()
        first = chunk(stream[:cut]) if cut else b""
        async with converse(HEAD + first, pause, chunk(stream[cut:]), LAST_CHUNK, target="/heartbeat") as talk:
            answer = await talk.answer()
            blocks = whole_blocks(stream[:cut])
            beats = beats_after(await answer.receive(len(blocks) + 2), blocks)
            assert beats >= 1
            pause.go()
            # further beats may have come before the rest, as the machine is slow; nothing may have come inside it
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
    """What of it has arrived is held back, so the client hears nothing else."""
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
        assert beats == len(beats) // 2 * BEAT
        assert block.strip(b"x") == b"\n\n"
        assert answer.end is End.COMPLETE


@pytest.mark.parametrize("cut", range(8))
async def test_byte_order_mark_behind_a_heartbeat_is_dropped(converse: Converse, cut: int) -> None:
    """A browser strips a mark only from the first bytes; behind a heartbeat it would lose the first event. The second mark is content."""
    mark, pause = b"\xef\xbb\xbf", Pause()
    stream = mark + mark + b"data: 1\n\n"
    async with converse(HEAD + (chunk(stream[:cut]) if cut else b""), pause, chunk(stream[cut:]), LAST_CHUNK, target="/heartbeat") as talk:
        answer = await talk.answer()
        await answer.receive(1)
        pause.go()
        assert (await answer.to_end()).lstrip(b":\n") == stream[3:]


async def test_busy_stream_gets_no_heartbeat(converse: Converse) -> None:
    """Blocks come ten times as often as heartbeats would; a run in which the machine stalled proves nothing and is made again."""
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
    """Another stream's heartbeats tell that the time for them has come."""
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
        await talk.downstream.ask("/heartbeat", headers=talk.scene.headers)  # the connection lives on, with nothing in between
        assert (await talk.answer()).head.status == 200


async def test_answer_to_head_gets_no_heartbeat(converse: Converse) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    async with converse(head, target="/heartbeat", method="HEAD") as talk, converse(HEAD, Pause(), target="/heartbeat") as beating:
        assert (await talk.answer()).end is End.COMPLETE
        await (await beating.answer()).receive(3 * len(BEAT))
        await talk.downstream.ask("/heartbeat", "HEAD", talk.scene.headers)
        assert (await talk.answer()).head.status == 200
