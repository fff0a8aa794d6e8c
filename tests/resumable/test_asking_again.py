"""An Idempotency-Key whose stream ended unfinished makes one new upstream request; the earlier stream can still be followed to its end."""

import asyncio

import pytest

from tests.kit.downstream import End
from tests.kit.stage import Scene
from tests.kit.upstream import Disconnect, Flood, Pause, Silence
from tests.resumable.answers import END, HEAD, event, events, sent, stream_of, unstamped
from tests.resumable.conftest import BODY, Play, StartPlay

pytestmark = pytest.mark.asyncio(loop_scope="session")

TRIES = 12


def key(name: str) -> list[tuple[str, str]]:
    return [("Idempotency-Key", name)]


async def cut(play: Play, target: str, name: str) -> str:
    """Open a stream with this key that the upstream cuts after two events; return its id."""
    async with play.ask(target, play.stage.scene(HEAD + sent(1, 2), Disconnect()), headers=key(name)) as answer:
        await answer.to_end()
    await play.reaches(stream_of(answer), "cut")
    return stream_of(answer)


async def bodies(play: Play, target: str, scene: Scene, name: str) -> list[bytes]:
    """Return the answers to many simultaneous requests with the same key."""

    async def body() -> bytes:
        async with play.ask(target, scene, headers=key(name)) as answer:
            assert answer.head.status == 200
            return unstamped(await answer.to_end())

    return await asyncio.gather(*(body() for _ in range(TRIES)))


async def test_key_of_a_cut_stream_repeats_the_request_and_names_the_new_stream(play: Play) -> None:
    first = await cut(play, "/ask", "cut")
    scene = play.stage.scene(HEAD + sent(1, 4) + END)
    for _ in range(2):
        async with play.ask("/ask", scene, headers=key("cut")) as again:
            assert unstamped(await again.to_end()) == events(1, 4)
            assert again.end is End.COMPLETE
            assert stream_of(again) != first
    assert len(scene.requests) == 1


async def test_event_id_of_the_cut_stream_gets_its_rest_and_the_cut(play: Play) -> None:
    first = await cut(play, "/ask", "rest")
    scene = play.stage.scene(HEAD + sent(1, 4) + END)
    async with play.ask("/ask", scene, headers=key("rest")) as again:
        await again.to_end()
    for seen, rest in ((1, event(2)), (2, b"")):
        async with play.ask("/ask", scene, headers=[*key("rest"), ("Last-Event-ID", f"{first}-{seen}")]) as old:
            assert (stream_of(old), unstamped(await old.to_end()), old.end) == (first, rest, End.CUT_SHORT)
    assert len(scene.requests) == 1


async def test_key_of_an_orphaned_stream_repeats_the_request(play: Play) -> None:
    async with play.ask("/paid", play.stage.scene(HEAD + sent(1, 1), Silence()), headers=key("orphan")) as answer:
        await answer.receive(1)
        answer.downstream.reset()
    await play.reaches(stream_of(answer), "orphaned")
    async with play.ask("/paid", play.stage.scene(HEAD + sent(1, 2) + END), headers=key("orphan")) as again:
        assert unstamped(await again.to_end()) == events(1, 2)


async def test_key_of_a_stopped_stream_does_not_repeat_the_request(play: Play) -> None:
    async with play.ask("/ask", play.stage.scene(HEAD + sent(1, 1), Silence()), headers=key("stop")) as answer:
        await answer.receive(1)
        async with play.ask(f"/streams/{stream_of(answer)}", method="DELETE", body=b""):
            pass
    scene = play.stage.scene(HEAD + sent(1, 2) + END)
    async with play.ask("/ask", scene, headers=key("stop")) as again:
        assert (unstamped(await again.to_end()), again.end) == (event(1), End.CUT_SHORT)
    assert scene.requests == []


async def test_key_of_a_stream_that_was_too_large_does_not_repeat_the_request(play: Play) -> None:
    async with play.ask("/small", play.stage.scene(HEAD, Flood(b"data: %s\n\n" % (b"x" * 100))), headers=key("large")) as answer:
        body = await answer.to_end()
    scene = play.stage.scene(HEAD + sent(1, 2) + END)
    async with play.ask("/small", scene, headers=key("large")) as again:
        assert await again.to_end() == body
    assert scene.requests == []


async def test_simultaneous_requests_after_the_cut_make_one_upstream_request(play: Play) -> None:
    await cut(play, "/ask", "race")
    pause = Pause()
    scene = play.stage.scene(pause, HEAD + sent(1, 4) + END)
    asking = asyncio.gather(*[bodies(play, "/ask", scene, "race")])
    await scene.asked()
    pause.go()
    assert await asking == [[events(1, 4)] * TRIES]
    assert len(scene.requests) == 1


async def test_key_of_a_cut_stream_is_refused_for_another_body(play: Play) -> None:
    await cut(play, "/ask", "body")
    async with play.ask("/ask", play.stage.scene(HEAD + END), headers=key("body"), body=BODY + b" ") as other:
        assert other.head.status == 422


async def test_upstream_that_refuses_the_second_request_leaves_the_key_free(play: Play) -> None:
    await cut(play, "/ask", "refused")
    refusal = play.stage.scene(b"HTTP/1.1 503 Later\r\nContent-Length: 0\r\n\r\n")
    async with play.ask("/ask", refusal, headers=key("refused")) as refused:
        assert refused.head.status == 503
    scene = play.stage.scene(HEAD + sent(1, 2) + END)
    async with play.ask("/ask", scene, headers=key("refused")) as again:
        assert unstamped(await again.to_end()) == events(1, 2)


async def test_request_of_a_cut_stream_that_only_the_store_has_is_repeated_once(start_play: StartPlay) -> None:
    async with start_play() as play:
        first = await cut(play, "/", "stored")
    async with start_play() as play:
        scene = play.stage.scene(HEAD + sent(1, 4) + END)
        assert await bodies(play, "/", scene, "stored") == [events(1, 4)] * TRIES
        assert len(scene.requests) == 1
        async with play.ask("/", scene, headers=[*key("stored"), ("Last-Event-ID", f"{first}-1")]) as old:
            assert (unstamped(await old.to_end()), old.end) == (event(2), End.CUT_SHORT)
    async with start_play() as play:
        late = play.stage.scene(HEAD + END)
        assert await bodies(play, "/", late, "stored") == [events(1, 4)] * TRIES
        assert late.requests == []


async def test_workers_make_one_upstream_request_after_the_cut(start_play: StartPlay) -> None:
    async with start_play({"workers": 3}) as play:
        await cut(play, "/", "workers")
        scene = play.stage.scene(HEAD + sent(1, 4) + END)
        assert await bodies(play, "/", scene, "workers") == [events(1, 4)] * TRIES
        assert len(scene.requests) == 1
