"""An upstream that ends cleanly after an unfinished block: every client gets that block, and it is no event."""

import zlib

import pytest

from tests.kit.downstream import End
from tests.kit.upstream import Disconnect, Pause, chunk
from tests.resumable.answers import END, HEAD, event, events, last_id, sent, stamped, stream_of, unstamped
from tests.resumable.conftest import BOTH_SCHEMES, Play, StartPlay

pytestmark = pytest.mark.asyncio(loop_scope="session")

DONE = b"data: [DONE]\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
TAILS = pytest.mark.parametrize("tail", [DONE, b"data: [DONE]", b"data: a\r\ndata: b\r\n", b": comment"])


async def follow(play: Play, stream: str, last_event_id: str = "") -> tuple[int, bytes]:
    """Return status and body of a stream that is requested by its id."""
    headers = [("Last-Event-ID", last_event_id)] if last_event_id else []
    async with play.ask(f"/streams/{stream}", method="GET", headers=headers, body=b"") as answer:
        body = await answer.to_end()
        assert answer.end is End.COMPLETE
        return answer.head.status, body


@BOTH_SCHEMES
@TAILS
async def test_unfinished_block_reaches_current_and_later_clients(play: Play, tail: bytes) -> None:
    pause = Pause()
    scene = play.stage.scene(HEAD + sent(1, 2), pause, chunk(tail) + END)
    async with play.ask("/ask", scene) as first:
        stream = stream_of(first)
        await first.receive_until(lambda body: unstamped(body) == events(1, 2))
        async with play.ask(f"/streams/{stream}", method="GET", body=b"") as second:
            await second.receive_until(lambda body: unstamped(body) == events(1, 2))
            pause.go()
            bodies = [await first.to_end(), await second.to_end()]
            assert {first.end, second.end} == {End.COMPLETE}
    whole = stamped(stream, 1, event(1)) + stamped(stream, 2, event(2))
    assert bodies == [whole + tail] * 2
    assert await follow(play, stream) == (200, whole + tail)
    assert await follow(play, stream, f"{stream}-1") == (200, stamped(stream, 2, event(2)) + tail)
    state = await play.state(stream)
    assert (state["stream-state"], state["stream-blocks"], state["stream-bytes"]) == ("complete", "2", str(len(whole + tail)))


@BOTH_SCHEMES
async def test_client_with_the_last_id_has_everything(play: Play) -> None:
    async with play.ask("/ask", play.stage.scene(HEAD + sent(1, 2) + chunk(DONE) + END)) as answer:
        body = await answer.to_end()
    assert await follow(play, stream_of(answer), last_id(body)) == (204, b"")


@BOTH_SCHEMES
async def test_stream_of_only_an_unfinished_block_is_kept(play: Play) -> None:
    async with play.ask("/ask", play.stage.scene(HEAD, chunk(DONE) + END)) as answer:
        assert await answer.to_end() == DONE
    assert await follow(play, stream_of(answer)) == (200, DONE)


@BOTH_SCHEMES
async def test_comments_before_an_unfinished_block_come_with_it(play: Play) -> None:
    async with play.ask("/ask", play.stage.scene(HEAD + sent(1, 1), chunk(b": ping\n\n" + DONE) + END)) as answer:
        assert unstamped(await answer.to_end()) == event(1) + b": ping\n" + DONE


@pytest.mark.parametrize("workers", [1, 3])
async def test_unfinished_block_survives_a_restart_and_is_found_by_every_worker(start_play: StartPlay, workers: int) -> None:
    async with start_play({"workers": workers}) as play:
        scene = play.stage.scene(HEAD + sent(1, 2) + chunk(DONE) + END)
        async with play.ask("/", scene, headers=[("Idempotency-Key", "once")]) as answer:
            body = await answer.to_end()
            stream = stream_of(answer)
    async with start_play({"workers": workers}) as play:
        for _ in range(4 * workers):
            assert await follow(play, stream) == (200, body)
            assert await follow(play, stream, last_id(body)) == (204, b"")
        state = await play.state(stream)
        assert (state["stream-state"], state["stream-blocks"], state["stream-bytes"]) == ("complete", "2", str(len(body)))
    assert body.endswith(b"\n\n" + DONE)


@BOTH_SCHEMES
async def test_unfinished_block_counts_toward_the_size_of_a_stream(play: Play) -> None:
    scene = play.stage.scene(HEAD + sent(1, 1), chunk(b"data: " + b"x" * 2000) + END)
    async with play.ask("/small", scene) as answer:
        assert unstamped(await answer.to_end()) == event(1)
        assert answer.end is End.CUT_SHORT
    await play.reaches(stream_of(answer), "too-large")


@BOTH_SCHEMES
@pytest.mark.parametrize(
    ("script", "state", "tail"),
    [
        ((HEAD, chunk(event(1) + DONE), Disconnect()), "cut", b""),
        ((UNTIL_CLOSE + event(1) + b"data: [DO", Disconnect()), "cut", b""),
        ((UNTIL_CLOSE + event(1) + DONE, Disconnect()), "complete", DONE),
    ],
    ids=["cut", "closed within a line", "closed after a line"],
)
async def test_only_a_clean_end_delivers_an_unfinished_block(play: Play, script: tuple[object, ...], state: str, tail: bytes) -> None:
    async with play.ask("/ask", play.stage.scene(*script)) as answer:
        assert unstamped(await answer.to_end()) == event(1) + tail
        assert answer.end is (End.COMPLETE if state == "complete" else End.CUT_SHORT)
    await play.reaches(stream_of(answer), state)


@BOTH_SCHEMES
async def test_unfinished_block_of_a_compressed_stream_is_kept(play: Play) -> None:
    head = HEAD.replace(b"Transfer-Encoding", b"Content-Encoding: gzip\r\nTransfer-Encoding")
    scene = play.stage.scene(head, chunk(zlib.compress(event(1) + DONE, wbits=31)) + END)
    async with play.ask("/ask", scene) as answer:
        assert unstamped(await answer.to_end()) == event(1) + DONE


MARK = b"\xef\xbb\xbf"


@BOTH_SCHEMES
async def test_block_that_begins_with_a_byte_order_mark_never_comes_first(play: Play) -> None:
    """The upstream's readers strip the stream's own mark. The blocks after it have no field `data` for them, and must have none here."""
    unseen, shown = MARK + b"data: unseen\nid: a\n\n", MARK + b"data: unseen\ndata: shown\n\n"
    async with play.ask("/ask", play.stage.scene(HEAD, chunk(MARK + unseen + shown + MARK + b"data: x\n") + END)) as answer:
        body = await answer.to_end()
        stream = stream_of(answer)
    first, second, tail = b":\n" + unseen, b":\n" + stamped(stream, 2, shown), b":\n" + MARK + b"data: x\n"
    assert body == first + second + tail
    assert await follow(play, stream, "a") == (200, second + tail)
