"""Kept streams survive the gateway, fit into memory, and continue when the store fails."""

import asyncio
import contextlib
import signal
import sqlite3
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.kit.downstream import End
from tests.kit.upstream import Pause, Silence, chunk
from tests.resumable.answers import END, HEAD, event, events, last_id, sent, stream_of, unstamped
from tests.resumable.conftest import BODY, Play, StartPlay

KILOBYTES = 1024
FIGURES = ("stream-state", "stream-blocks", "stream-bytes")


async def keep(play: Play, *script: object, **request: object) -> tuple[str, bytes]:
    """Return the id and the body of a stream that is followed to its end."""
    async with play.ask("/", play.stage.scene(*script), **request) as answer:  # type: ignore[arg-type]
        return stream_of(answer), await answer.to_end()


async def body_of(play: Play, stream: str, last_event_id: str = "") -> tuple[End | None, bytes]:
    """Follow a stream again; return how it ends, and its body. While memory is full, of streams about to be stored for instance, the client
    retries as it is told."""
    headers = [("Last-Event-ID", last_event_id)] if last_event_id else []
    async with asyncio.timeout(60):
        while True:
            async with play.ask(f"/streams/{stream}", method="GET", headers=headers, body=b"") as answer:
                if answer.head.status == 200:
                    body = await answer.to_end()
                    return answer.end, body
                assert (answer.head.status, answer.head.value("Retry-After")) == (429, "1")
            await asyncio.sleep(0.1)


async def stop(play: Play, number: signal.Signals) -> None:
    await asyncio.to_thread(play.subject.process.stop, number)


async def log_line(play: Play, part: str) -> None:
    """Return when a line of the log has this part."""
    async with asyncio.timeout(60):
        while part not in play.subject.text():
            await asyncio.sleep(0.02)


async def is_stored(directory: Path, question: str, answer: int) -> None:
    """Return when the store gives this answer."""
    with contextlib.closing(sqlite3.connect(f"file:{directory}/data/streams.sqlite3?mode=ro", uri=True)) as store:
        async with asyncio.timeout(60):
            while store.execute(question).fetchone() != (answer,):
                await asyncio.sleep(0.02)


def lines_of(play: Play, part: str) -> int:
    return sum(part in line for line in play.subject.text().splitlines())


def large(size: int) -> bytes:
    """Return one event of about `size` bytes, as an HTTP chunk."""
    return chunk(b"data: %s\n\n" % (b"x" * size))


def fill(device: Path) -> None:
    """Take all space, as other programs on the device do."""
    with (device / "others").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4 * KILOBYTES))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "kill -9"])
async def test_finished_stream_survives_a_restart(start_play: StartPlay, tmp_path: Path, number: signal.Signals) -> None:
    pieces = [
        b"data: 1\r\n\r",
        b"\ndata: 2\r\n\r\n",
        b"\n",
        b": waits\n\n",
        b"\rdata: 3\r\r",
        b"id: own\ndata: 4\n\n",
        b"\n",
        b"data: 5\n\n",
    ]
    async with start_play() as play:
        stream, body = await keep(play, HEAD + chunk(pieces[0]), *(chunk(piece) for piece in pieces[1:]), END)
        before = await play.state(stream)
        seen = ["", *(f"{stream}-{number}" for number in (1, 2, 3)), "own"]
        rests = [await body_of(play, stream, id) for id in seen]
        assert rests[0] == (End.COMPLETE, body)
        await is_stored(tmp_path, "SELECT count(*) FROM endings", 1)
        await stop(play, number)
    async with start_play() as play:
        state = await play.state(stream)
        assert [state[name] for name in FIGURES] == [before[name] for name in FIGURES]
        assert [await body_of(play, stream, id) for id in seen] == rests
        async with play.ask(f"/streams/{stream}", method="GET", headers=[("Last-Event-ID", f"{stream}-5")], body=b"") as end:
            assert end.head.status == 204


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "kill -9"])
async def test_stream_that_ran_when_the_gateway_stopped_is_cut_with_its_events_so_far(
    start_play: StartPlay, tmp_path: Path, number: signal.Signals
) -> None:
    async with start_play({"drain_seconds": 0.3}) as play, AsyncExitStack() as stack:
        answer = await stack.enter_async_context(play.ask("/", play.stage.scene(HEAD + sent(1, 3), Silence())))
        got = await answer.receive_until(lambda body: unstamped(body).endswith(event(3)))
        await is_stored(tmp_path, "SELECT sum(length(blocks)) FROM parts", len(got))
        await stop(play, number)
        await answer.to_end()
        assert answer.end is not End.COMPLETE
    async with start_play() as play:
        state = await play.state(stream_of(answer))
        assert (state["stream-state"], state["stream-blocks"]) == ("cut", "3")
        assert "gateway stopped" in state["stream-reason"]
        assert await body_of(play, stream_of(answer)) == (End.CUT_SHORT, got)
        assert await body_of(play, stream_of(answer), last_id(got)) == (End.CUT_SHORT, b"")


async def test_drain_waits_for_running_answers_whether_they_are_followed_or_not(start_play: StartPlay) -> None:
    pause = Pause()
    streams = []
    async with start_play({"drain_seconds": 60}) as play, AsyncExitStack() as stack:
        for _ in range(2):
            async with play.ask("/", play.stage.scene(HEAD + sent(1, 3), pause, sent(4, 6) + END)) as answer:
                await answer.receive_until(lambda body: unstamped(body).endswith(event(3)))
                streams.append(stream_of(answer))
                answer.downstream.reset()
        followed = await stack.enter_async_context(play.ask(f"/streams/{streams[0]}", method="GET", body=b""))
        await followed.receive_until(lambda body: unstamped(body).endswith(event(3)))
        stopping = asyncio.ensure_future(asyncio.to_thread(play.subject.process.stop))
        await log_line(play, "draining")
        pause.go()
        assert unstamped(await followed.to_end()) == events(1, 6)
        assert followed.end is End.COMPLETE
        assert await stopping == 0
    async with start_play() as play:
        for stream in streams:
            end, body = await body_of(play, stream)
            assert (end, unstamped(body)) == (End.COMPLETE, events(1, 6))


async def test_answers_are_not_given_up_while_the_store_cannot_be_read(start_play: StartPlay, tmp_path: Path) -> None:
    async with start_play(resume={"name": "body:/message", "path": "{name}"}) as play:
        stream, body = await keep(play, HEAD + sent(1, 3) + END, headers=[("Idempotency-Key", "one")])
    async with start_play(resume={"name": "body:/message", "path": "{name}"}) as play:
        with (tmp_path / "data" / "streams.sqlite3").open("r+b") as file:
            file.seek(4 * KILOBYTES)
            file.write(bytes(100 * KILOBYTES))
        scene = play.stage.scene(HEAD + sent(7, 7) + END)
        asked: list[tuple[str, str, list[tuple[str, str]]]] = [
            ("GET", f"/streams/{stream}", []),
            ("HEAD", f"/streams/{stream}", []),
            ("GET", "/hello", []),
            ("GET", "/", [("Last-Event-ID", last_id(body))]),
            ("POST", "/", [("Idempotency-Key", "one")]),
            ("POST", "/", [("Last-Event-ID", last_id(body))]),
        ]
        for method, target, headers in asked:
            async with play.ask(target, scene, method=method, headers=headers, body=BODY if method == "POST" else b"") as refused:
                assert (method, refused.head.status, refused.head.value("Retry-After")) == (method, 503, "1")
        assert scene.requests == []


async def test_idempotency_key_and_credentials_hold_after_a_restart(start_play: StartPlay) -> None:
    mine = [("Idempotency-Key", "one"), ("Authorization", "Bearer mine")]
    async with start_play() as play:
        stream, body = await keep(play, HEAD + sent(1, 3) + END, headers=mine)
    async with start_play() as play:
        scene = play.stage.scene(HEAD + sent(7, 7) + END)
        async with play.ask("/", scene, headers=mine) as again:
            assert (stream_of(again), await again.to_end()) == (stream, body)
        async with play.ask("/", scene, headers=mine, body=BODY + b" ") as other:
            assert other.head.status == 422
        async with play.ask(f"/streams/{stream}", method="GET", body=b"") as stranger:
            assert stranger.head.status == 403
        assert scene.requests == []


async def test_stream_is_sent_as_it_was_kept_when_its_route_is_gone_after_a_restart(start_play: StartPlay) -> None:
    head = HEAD[:-2] + b"Content-Location: http://127.0.0.1/1\r\n\r\n"
    async with start_play() as play:
        stream, body = await keep(play, head + sent(1, 3) + END)
    async with start_play(path="/other") as play, play.ask(f"/streams/{stream}", method="GET", body=b"") as answer:
        assert (answer.head.value("Content-Location"), await answer.to_end()) == ("http://127.0.0.1/1", body)


async def test_expired_stream_is_gone_with_its_reason_after_a_restart_too(start_play: StartPlay) -> None:
    async with start_play(retain_seconds=0.2) as play:
        stream, _ = await keep(play, HEAD + sent(1, 3) + END)
        await play.waits(stream, lambda state: state["status"] == "410")
    async with start_play(retain_seconds=0.2) as play, play.ask(f"/streams/{stream}", method="GET", body=b"") as gone:
        assert gone.head.status == 410
        assert b"complete" in await gone.to_end()


async def test_complete_stream_without_events_is_kept_like_any_other(start_play: StartPlay) -> None:
    async with start_play() as play:
        stream, _ = await keep(play, HEAD + END)
    async with start_play() as play:
        assert await body_of(play, stream) == (End.COMPLETE, b"")


async def test_streams_continue_in_memory_while_the_device_is_full(start_play: StartPlay, device: Path) -> None:
    async with start_play({"data_dir": device / "data"}) as play:
        first, first_body = await keep(play, HEAD + sent(1, 3) + END)
        fill(device)
        pause = Pause()
        scene = play.stage.scene(HEAD, *[large(100 * KILOBYTES)] * 20, pause, sent(1, 3) + END)
        async with play.ask("/", scene) as answer:
            await answer.receive(2000 * KILOBYTES)
            await log_line(play, "the store of streams fails")
            for _ in range(3):
                await keep(play, HEAD + sent(1, 3) + END)
            assert await body_of(play, first) == (End.COMPLETE, first_body)
            (device / "others").unlink()
            await log_line(play, "the store of streams works again")
            pause.go()
            body = await answer.to_end()
            assert answer.end is End.COMPLETE
        assert lines_of(play, "the store of streams fails") == 1
        assert lines_of(play, "the store of streams works again") == 1
    async with start_play({"data_dir": device / "data"}) as play:
        assert await body_of(play, stream_of(answer)) == (End.COMPLETE, body)


async def test_finished_streams_leave_memory_and_are_served_from_the_store(start_play: StartPlay) -> None:
    streams: list[tuple[str, bytes]] = []
    async with start_play({"max_kept_bytes": 4000 * KILOBYTES, "plain": True}) as play:

        async def keep_many() -> int:
            for _ in range(25):
                streams.extend(await asyncio.gather(*(keep(play, HEAD + large(250 * KILOBYTES) + END) for _ in range(8))))
            return play.subject.memory()

        sizes = [await keep_many(), await keep_many()]
        while sizes[-1] - sizes[-2] >= 25_000 * KILOBYTES:  # each time there were twice as many
            assert len(sizes) < 5, sizes  # the allocator grows too while the store lags behind, but not for ever
            sizes.append(await keep_many())
        for stream, body in (*streams[:3], *streams[200:203], *streams[-3:]):
            assert await body_of(play, stream) == (End.COMPLETE, body)


async def test_largest_running_stream_ends_when_all_together_are_too_large(start_play: StartPlay) -> None:
    async with start_play({"max_kept_bytes": 1000 * KILOBYTES, "max_share_per_client": 1}) as play, AsyncExitStack() as stack:
        pauses = [Pause() for _ in range(4)]
        scenes = [
            play.stage.scene(HEAD + large(size * KILOBYTES), pause, sent(1, 1) + END)
            for size, pause in zip((200, 300, 400, 250), pauses, strict=True)
        ]
        answers = [await stack.enter_async_context(play.ask("/", scene)) for scene in scenes]
        async with asyncio.timeout(60):
            await answers[2].to_end()
        assert answers[2].end is End.CUT_SHORT
        state = await play.reaches(stream_of(answers[2]), "too-large")
        assert "streams together exceeded 1024000 bytes" in state["stream-reason"]
        for answer, pause in zip(answers, pauses, strict=True):
            pause.go()
            if answer is not answers[2]:
                assert unstamped(await answer.to_end()).endswith(events(1, 1))
                assert answer.end is End.COMPLETE
