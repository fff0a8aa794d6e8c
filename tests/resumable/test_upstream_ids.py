"""An upstream that numbers its events itself: the same POST with one of its IDs resumes the kept answer."""

import asyncio
from collections.abc import Iterable

import pytest

from tests.kit.downstream import Answer, End
from tests.kit.upstream import Disconnect, Pause, chunk
from tests.resumable.answers import END, HEAD, stream_of
from tests.resumable.conftest import BODY, Play, StartPlay

pytestmark = pytest.mark.asyncio(loop_scope="session")

TRIES = 12


def numbered(numbers: Iterable[int], text: str = "") -> bytes:
    return b"".join(b"id: %d\ndata: %b%d\n\n" % (number, text.encode(), number) for number in numbers)


def wire(numbers: Iterable[int], text: str = "") -> bytes:
    return b"".join(chunk(numbered([number], text)) for number in numbers)


def by(who: str, seen: str = "") -> list[tuple[str, str]]:
    return [("Authorization", f"Bearer {who}"), *([("Last-Event-ID", seen)] if seen else [])]


async def rest(answer: Answer) -> bytes:
    assert answer.head.status == 200
    return await answer.to_end()


async def test_request_resumes_the_kept_answer(play: Play) -> None:
    pause = Pause()
    scene = play.stage.scene(HEAD + wire([1, 2]), pause, wire([3]) + END)
    async with play.ask("/ask", scene, headers=by("memory")) as answer:
        await answer.receive(len(numbered([1, 2])))
        answer.downstream.reset()
    async with play.ask("/ask", scene, headers=by("memory", "1")) as again:
        await again.receive(len(numbered([2])))
        pause.go()
        assert await rest(again) == numbered([2, 3])
    assert stream_of(again) == stream_of(answer)
    assert len(scene.requests) == 1


@pytest.mark.parametrize(
    ("headers", "body"),
    [([("Last-Event-ID", "1")], BODY), (by("other", "1"), BODY), (by("strict", "1"), BODY + b" "), (by("strict", "9"), BODY)],
    ids=["no credentials", "other credentials", "other body", "unknown event"],
)
async def test_request_that_may_be_another_one_is_sent_to_the_upstream(play: Play, headers: list[tuple[str, str]], body: bytes) -> None:
    async with play.ask("/ask", play.stage.scene(HEAD + wire([1, 2]) + END), headers=by("strict")) as kept:
        await kept.to_end()
    scene = play.stage.scene(HEAD + wire([2], "new ") + END)
    async with play.ask("/ask", scene, headers=headers, body=body) as answer:
        assert await rest(answer) == numbered([2], "new ")
    assert scene.requests[0].header("Last-Event-ID") == dict(headers)["Last-Event-ID"]


async def test_without_credentials_no_answer_is_joined(play: Play) -> None:
    async with play.ask("/ask", play.stage.scene(HEAD + wire([1, 2]) + END)) as kept:
        await kept.to_end()
    scene = play.stage.scene(HEAD + wire([2], "new ") + END)
    async with play.ask("/ask", scene, headers=[("Last-Event-ID", "1")]) as answer:
        assert await rest(answer) == numbered([2], "new ")


async def test_newest_answer_with_the_event_is_joined_and_one_of_the_same_key_before_it(play: Play) -> None:
    for number, headers in enumerate([by("newest"), [*by("newest"), ("Idempotency-Key", "k")], by("newest")]):
        async with play.ask("/ask", play.stage.scene(HEAD + wire([1, 2], f"{number} ") + END), headers=headers) as answer:
            await answer.to_end()
    scene = play.stage.scene(HEAD + END)
    async with play.ask("/ask", scene, headers=by("newest", "1")) as again:
        assert await rest(again) == numbered([2], "2 ")
    async with play.ask("/ask", scene, headers=[*by("newest", "1"), ("Idempotency-Key", "k")]) as again:
        assert await rest(again) == numbered([2], "1 ")
    assert scene.requests == []


async def test_cut_stream_of_a_key_is_found_by_its_ids_after_the_key_repeated_the_request(play: Play) -> None:
    key = ("Idempotency-Key", "numbered")
    async with play.ask("/ask", play.stage.scene(HEAD + wire([1, 2, 3]), Disconnect()), headers=[key]) as answer:
        await answer.to_end()
    await play.reaches(stream_of(answer), "cut")
    pause = Pause()
    scene = play.stage.scene(HEAD + wire([1]), pause, wire([2, 3, 4]) + END)
    async with play.ask("/ask", scene, headers=[key]) as again:
        await again.receive(len(numbered([1])))
        async with play.ask("/ask", scene, headers=[key, ("Last-Event-ID", "2")]) as old:
            assert (await rest(old), old.end) == (numbered([3]), End.CUT_SHORT)
        pause.go()
        assert await rest(again) == numbered([1, 2, 3, 4])
    assert len(scene.requests) == 1


async def test_ids_of_a_gateway_behind_this_one_are_ids_of_the_upstream(play: Play) -> None:
    theirs = "f" * 32
    blocks = [b"data: %d\nid: %b-%d\n\n" % (number, theirs.encode(), number) for number in (1, 2)]
    scene = play.stage.scene(HEAD + b"".join(map(chunk, blocks)) + END)
    async with play.ask("/ask", scene, headers=by("nested")) as answer:
        await answer.to_end()
    async with play.ask("/ask", scene, headers=by("nested", f"{theirs}-1")) as again:
        assert await rest(again) == blocks[1]
    async with play.ask("/ask", scene, headers=by("nested", f"{'e' * 32}-1")) as unknown:
        assert unknown.head.status == 404
    assert len(scene.requests) == 1


async def test_answer_that_only_the_store_has_is_joined(start_play: StartPlay) -> None:
    key = ("Idempotency-Key", "k")
    async with start_play() as play:
        for text in ("old ", "new "):
            async with play.ask("/", play.stage.scene(HEAD + wire([1, 2, 20], text) + END), headers=by("store")) as answer:
                await answer.to_end()
        async with play.ask("/", play.stage.scene(HEAD + wire([1, 2], "key ") + END), headers=[key]) as answer:
            await answer.to_end()
    async with start_play() as play:
        scene = play.stage.scene(HEAD + wire([3], "asked ") + END)
        async with play.ask("/", scene, headers=by("store", "2")) as again:
            assert await rest(again) == numbered([20], "new ")
        async with play.ask("/", scene, headers=[key, ("Last-Event-ID", "1")]) as again:
            assert await rest(again) == numbered([2], "key ")
        assert scene.requests == []
        for headers in (by("other", "2"), [("Last-Event-ID", "1")], by("store", "0")):
            async with play.ask("/", scene, headers=headers) as anew:
                assert await rest(anew) == numbered([3], "asked ")
        assert len(scene.requests) == 3


async def test_answer_of_another_worker_is_joined(start_play: StartPlay) -> None:
    async with start_play({"workers": 3}) as play:
        pause = Pause()
        scene = play.stage.scene(HEAD + wire([1, 2]), pause, wire([3]) + END)
        joined = asyncio.Barrier(TRIES)

        async def body() -> bytes:
            async with play.ask("/", scene, headers=by("worker", "1")) as answer:
                await joined.wait()
                pause.go()
                return await rest(answer)

        async with play.ask("/", scene, headers=by("worker")) as first:
            await first.receive(len(numbered([1, 2])))
            assert await asyncio.gather(*(body() for _ in range(TRIES))) == [numbered([2, 3])] * TRIES
        assert len(scene.requests) == 1
        other = play.stage.scene(HEAD + wire([2], "new ") + END)
        async with play.ask("/", other, headers=by("stranger", "1")) as anew:
            assert await rest(anew) == numbered([2], "new ")
