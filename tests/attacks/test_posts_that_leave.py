"""A client that POSTs to a resumable route and leaves, again and again: what it leaves behind counts as its own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from tests.kit.downstream import AT_ONCE_SECONDS, Downstream, End
from tests.kit.routed_gateway import Gateway, running
from tests.kit.upstream import EVENT_STREAM_HEAD, LAST_CHUNK, Asked, Pause, Script, ScriptedUpstream, Silence, chunk

MOST_STREAMS, MOST_PER_CLIENT = 8, 3
KEPT_BYTES = 2 * 1024 * 1024
ATTACKER, STRANGER = "127.0.0.2", "127.0.0.3"
LARGE = b"data: %b\n\n" % (b"x" * (KEPT_BYTES // 5))
"""Three of these are more than one client may keep, and less than all may."""
ROUNDS = 12


class Answers:
    """What the upstream answers: a long stream to the attacker, one that waits in its midst to others, and to `/silent` nothing."""

    def __init__(self) -> None:
        self.pause = Pause()

    def __call__(self, asked: Asked) -> Script:
        if asked.target.startswith("/silent"):
            return [Silence()]
        if asked.target.startswith("/attack"):
            return [EVENT_STREAM_HEAD, chunk(LARGE), Silence()]
        first = b"data: begin\n\n" if asked.target.startswith("/small") else LARGE
        return [EVENT_STREAM_HEAD, chunk(first), self.pause, chunk(b"data: end\n\n") + LAST_CHUNK]


@contextlib.asynccontextmanager
async def attacked(directory: Path, answers: Answers, workers: int) -> AsyncIterator[tuple[Gateway, ScriptedUpstream]]:
    async with ScriptedUpstream(answers) as upstream:
        route = {"path": "/", "upstream": upstream.url, "mode": "resumable", "heartbeat_seconds": 0}
        limits = {"max_streams": MOST_STREAMS, "max_streams_per_client": MOST_PER_CLIENT, "max_kept_bytes": KEPT_BYTES * workers}
        async with running([route], directory, **limits, workers=workers) as gateway:
            yield gateway, upstream


async def post_and_leave(gateway: Gateway, target: str, fields: Sequence[tuple[str, str]] = ()) -> int:
    """Return the status; an event stream is left at its first byte."""
    async with Downstream(gateway.port, source=ATTACKER) as attacker:
        await attacker.ask(target, "POST", fields, b"{}")
        answer = await attacker.answer("POST")
        await answer.receive(1)
        return answer.head.status


def open_at(upstream: ScriptedUpstream, prefix: str) -> int:
    """How many requests the upstream has open."""
    return sum(asked.target.startswith(prefix) and not asked.left.is_set() for asked in upstream.requests)


async def until_at_most(upstream: ScriptedUpstream, prefix: str, most: int) -> None:
    """Return when the upstream has no more requests open: it notices a little later that one was cancelled."""
    async with asyncio.timeout(AT_ONCE_SECONDS):
        while open_at(upstream, prefix) > most:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("workers", [1, 2])
async def test_streams_that_are_left_count_for_their_client_and_cost_strangers_nothing(tmp_path: Path, workers: int) -> None:
    answers = Answers()
    async with attacked(tmp_path, answers, workers) as (gateway, upstream), Downstream(gateway.port) as owner:
        await owner.ask("/own", "POST", body=b"{}")
        own = await owner.answer("POST")
        await own.receive(len(LARGE))
        statuses = []
        for number in range(ROUNDS):
            statuses.append(await post_and_leave(gateway, f"/attack/{number}"))
            await until_at_most(upstream, "/attack", MOST_PER_CLIENT)
        assert set(statuses) <= {200, 429}  # with several workers, the orphans of another one stay
        assert statuses.count(200) == len([asked for asked in upstream.requests if asked.target.startswith("/attack")])
        if workers == 1:
            assert set(statuses) == {200}
        async with Downstream(gateway.port, source=STRANGER) as stranger:
            await stranger.ask("/other", "POST", body=b"{}")
            served = await stranger.answer("POST")
            assert served.head.status == 200
            await served.receive(len(LARGE))
            answers.pause.go()
            for answer in (own, served):
                assert b"data: end\n" in await answer.to_end()
                assert answer.end is End.COMPLETE


async def test_streams_that_no_upstream_has_answered_yet_count_too(tmp_path: Path) -> None:
    async with attacked(tmp_path, Answers(), 1) as (gateway, upstream):
        for number in range(ROUNDS):
            async with Downstream(gateway.port, source=ATTACKER) as attacker:
                await attacker.ask("/silent", "POST", [("Idempotency-Key", str(number))], b"{}")
                await upstream.wait_for_requests(number + 1)
            await until_at_most(upstream, "/silent", MOST_PER_CLIENT)
        async with Downstream(gateway.port, source=STRANGER) as stranger:
            await stranger.ask("/own", "POST", body=b"{}")
            assert (await stranger.answer("POST")).head.status == 200


async def test_streams_that_are_followed_do_not_give_way_and_can_be_joined_at_the_limit(tmp_path: Path) -> None:
    """A stream is followed by a client of another address that knows its id, so its opener has nothing open and still no room."""
    answers = Answers()
    async with attacked(tmp_path, answers, 1) as (gateway, upstream), contextlib.AsyncExitStack() as stack:
        ids = []
        for number in range(MOST_PER_CLIENT):
            async with Downstream(gateway.port, source=ATTACKER) as opener:
                await opener.ask(f"/small/{number}", "POST", body=b"{}")
                answer = await opener.answer("POST")
                ids.append(answer.head.value("Stream-Id"))
                follower = await stack.enter_async_context(Downstream(gateway.port, source=STRANGER))
                await follower.ask(f"/streams/{ids[-1]}")
                await (await follower.answer()).receive(1)
        assert await post_and_leave(gateway, "/small/more") == 429
        assert len(upstream.requests) == MOST_PER_CLIENT
        async with Downstream(gateway.port, source=ATTACKER) as back:
            await back.ask(f"/streams/{ids[0]}")
            answer = await back.answer()
            assert answer.head.status == 200
            answers.pause.go()
            assert b"data: end\n" in await answer.to_end()
