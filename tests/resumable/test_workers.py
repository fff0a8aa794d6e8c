"""With several workers, a client finds its stream wherever its connection arrives."""

import asyncio
import contextlib

from tests.kit.downstream import Answer
from tests.kit.upstream import Pause
from tests.resumable.answers import END, HEAD, event, events, last_id, sent, stream_of, unstamped
from tests.resumable.conftest import Play, StartPlay

WORKERS = 3
TRIES = 12
"""The number of connections that the kernel spreads: all go to one of three workers once in some hundred thousand runs."""


async def bodies(play: Play, target: str, **request: object) -> list[bytes]:
    async def body() -> bytes:
        async with play.ask(target, **request) as answer:  # type: ignore[arg-type]
            return await answer.to_end()

    return await asyncio.gather(*(body() for _ in range(TRIES)))


async def test_stream_is_found_by_every_worker(start_play: StartPlay) -> None:
    async with start_play({"workers": WORKERS}) as play:
        pause = Pause()
        scene = play.stage.scene(HEAD + sent(1, 3), pause, sent(4, 5) + END)
        async with play.ask("/", scene) as answer:
            first = await answer.receive_until(lambda body: unstamped(body).endswith(event(3)))
            answer.downstream.reset()
        again = asyncio.gather(
            bodies(play, f"/streams/{stream_of(answer)}", method="GET", headers=[("Last-Event-ID", last_id(first))], body=b""),
            bodies(play, "/", scene=scene, headers=[("Last-Event-ID", last_id(first))]),
        )
        pause.go()
        for group in await again:
            assert [unstamped(first + rest) for rest in group] == [events(1, 5)] * TRIES
        assert len(scene.requests) == 1


async def test_same_key_reaches_the_same_worker(start_play: StartPlay) -> None:
    async with start_play({"workers": WORKERS}) as play:
        scene = play.stage.scene(HEAD + sent(1, 3) + END)
        answers = await bodies(play, "/", scene=scene, headers=[("Idempotency-Key", "shared")])
        assert [unstamped(body) for body in answers] == [events(1, 3)] * TRIES
        assert len(scene.requests) == 1


async def test_request_that_was_handed_off_is_counted_and_announced_once(start_play: StartPlay) -> None:
    async with start_play({"workers": WORKERS}) as play, contextlib.AsyncExitStack() as stack:
        scene = play.stage.scene(HEAD + sent(1, 1) + END)
        answers: list[Answer] = []
        for number in range(TRIES):
            answers.append(await stack.enter_async_context(play.ask("/", scene, headers=[("Idempotency-Key", str(number))])))
            await answers[-1].to_end()
        assert len(scene.requests) == TRIES
        for asked in scene.requests:
            assert asked.header("X-Forwarded-For") == "127.0.0.1"
            assert (asked.header("Via") or "").count("gateway") == 1
