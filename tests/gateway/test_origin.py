"""Streams that wait for an upstream server: one of them tries it for all, and all follow the moment that it answers."""

import asyncio
import itertools
from typing import Any

from gateway.modes.shared.origin import FIRST_SECONDS, LONGEST_SECONDS, Origin
from tests.kit.waiting import GUARD_SECONDS


class Stream:
    """A stream whose attempts fail as long as its server is down."""

    def __init__(self, server: "Server", *, wanted: bool = True, broken: bool = False) -> None:
        self.wanted = wanted
        self.open = False
        self.alone = False
        self.attempts: list[float] = []
        self._broken = broken
        self._server = server

    def attempt_in(self, seconds: float) -> None:
        asyncio.get_running_loop().call_later(seconds, self._attempt)

    def pace_alone(self) -> None:
        self.alone = True

    def _attempt(self) -> None:
        self.attempts.append(asyncio.get_running_loop().time())
        self._server.attempts.append(self.attempts[-1])
        origin: Any = self._server.origin
        if self._broken or not self._server.up:
            origin.wait(self)
        else:
            self.open = True
            origin.reached()


class Server:
    """A server and the streams that follow it."""

    def __init__(self) -> None:
        self.origin = Origin()
        self.up = False
        self.attempts: list[float] = []

    def lose(self, *streams: Stream) -> None:
        """Each has made its first attempt, and failed."""
        origin: Any = self.origin
        for stream in streams:
            origin.wait(stream)

    async def attempted(self, count: int) -> None:
        async with asyncio.timeout(GUARD_SECONDS):
            while len(self.attempts) < count:
                await asyncio.sleep(0.005)


async def all_open(streams: list[Stream]) -> None:
    async with asyncio.timeout(GUARD_SECONDS):
        while not all(stream.open for stream in streams):
            await asyncio.sleep(0.005)


async def test_one_stream_at_a_time_tries_a_server_that_is_down_in_turn_and_ever_more_slowly() -> None:
    server = Server()
    streams = [Stream(server) for _ in range(1000)]
    began = asyncio.get_running_loop().time()
    server.lose(*streams)
    await server.attempted(5)
    assert [len(stream.attempts) for stream in streams[:6]] == [1, 1, 1, 1, 1, 0]
    waits = [after - before for before, after in itertools.pairwise([began, *server.attempts])]
    least = [FIRST_SECONDS, FIRST_SECONDS, 2 * FIRST_SECONDS, 4 * FIRST_SECONDS, LONGEST_SECONDS]
    assert all(wait > 0.9 * shortest for wait, shortest in zip(waits, least, strict=True)), waits


async def test_all_streams_follow_in_steps_the_moment_that_one_gets_an_answer() -> None:
    server = Server()
    streams = [Stream(server) for _ in range(1000)]
    server.lose(*streams)
    await server.attempted(2)
    server.up = True
    await all_open(streams)
    assert len(server.attempts) == 2 + 1000
    first, last = server.attempts[2], server.attempts[-1]
    assert last - first < 10 * LONGEST_SECONDS, "one by one it would take half an hour"


async def test_answer_to_a_stream_that_did_not_wait_releases_the_others() -> None:
    server = Server()
    streams = [Stream(server) for _ in range(20)]
    server.lose(*streams)
    await server.attempted(1)
    server.up = True
    fresh = Stream(server)
    fresh.attempt_in(0)
    await all_open([*streams, fresh])


async def test_stream_that_fails_although_others_get_answers_does_not_storm_its_server() -> None:
    server = Server()
    broken = Stream(server, broken=True)
    server.lose(broken)
    server.up = True
    origin: Any = server.origin
    async with asyncio.timeout(GUARD_SECONDS):
        while len(broken.attempts) < 5:
            origin.reached()
            await asyncio.sleep(0.001)
    waits = [after - before for before, after in itertools.pairwise(broken.attempts)]
    assert min(waits) > 0.9 * FIRST_SECONDS


async def test_stream_that_no_subscriber_waits_for_any_more_goes_its_own_pace() -> None:
    server = Server()
    unwanted, wanted = Stream(server, wanted=False), Stream(server)
    server.lose(unwanted, wanted)
    await server.attempted(1)
    assert (unwanted.alone, unwanted.attempts) == (True, [])
    assert len(wanted.attempts) == 1


async def test_stream_that_left_is_not_tried() -> None:
    server = Server()
    gone, staying = Stream(server), Stream(server)
    server.lose(gone, staying)
    origin: Any = server.origin
    origin.leave(gone)
    origin.leave(gone)
    await server.attempted(2)
    assert gone.attempts == []
    assert repr(origin).startswith("<Origin waiting=1 seconds=")
