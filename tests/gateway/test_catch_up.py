"""Where a catch-up and the live stream of the same upstream have met, though neither brings the same blocks as the other."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from eventstream import Event, Parser
from gateway.access.budget import Budget
from gateway.modes.shared.catch_up import CatchUp
from gateway.modes.shared.origin import Origin
from gateway.streams.fan_out import FanOut
from gateway.streams.history import UNLIMITED
from gateway.streams.subscriber import Subscriber
from gateway.streams.wheel import TimerWheel
from tests.gateway.subscribing import Downstream, connected


class SilentSource:
    """An upstream that sends nothing: the test says what has come."""

    last_event_id = ""

    async def parsed_blocks(self) -> AsyncIterator[tuple[bytes, Event | None]]:
        await asyncio.Event().wait()
        yield b"", None

    async def close(self) -> None:
        """Has nothing to close."""


class Live:
    """The live stream, as far as a catch-up looks at it."""

    def __init__(self, wheel: TimerWheel, memory: Budget) -> None:
        self.fan_out = FanOut(UNLIMITED, wheel, memory, heartbeat_ticks=0)
        self.catch_ups: set[CatchUp] = set()
        self.origin = Origin()
        self._parser = Parser()

    def take(self, *blocks: bytes) -> None:
        """Do the same as `SharedStream.take`."""
        for block in blocks:
            before = self._parser.last_event_id
            self._parser.feed(block)
            id = self._parser.last_event_id
            self.fan_out.append(block, id if id != before else None)
            for catch_up in tuple(self.catch_ups):
                if id != before:
                    catch_up.meet(id)


def opened(wheel: TimerWheel) -> tuple[Live, CatchUp]:
    memory = Budget(2**40, 2**40)
    live: Any = Live(wheel, memory)
    source: Any = SilentSource()
    place = Budget(1, 1).open("owner", 1)
    catch_up = CatchUp(
        live, "/", "1", lambda *_: source, lambda moved: FanOut(UNLIMITED, wheel, memory, heartbeat_ticks=0, moved=moved), place
    )
    catch_up.following.start()
    return live, catch_up


def take(catch_up: CatchUp, *blocks: bytes) -> None:
    """Blocks come on the connection of the catch-up."""
    parser = Parser()
    for block in blocks:
        before = parser.last_event_id
        events = parser.feed(block)
        id = parser.last_event_id
        catch_up.take(block, events[0] if events else None, id if id != before else None)


def joined(catch_up: CatchUp, downstream: Downstream, wheel: TimerWheel) -> Subscriber:
    subscriber = Subscriber(downstream.transport, wheel, chunked=False, takes_retry=False, unsent=Budget(1, 1), owner="owner")
    downstream.written_by(subscriber)
    catch_up.fan_out.join(subscriber, 0)
    return subscriber


E2, E3, E4 = b"id: 2\ndata: two\n\n", b"id: 3\ndata: three\n\n", b"id: 4\ndata: four\n\n"
MORE = b"data: more, without an ID\n\n"
LAST = b"id: 9\ndata: the last\n\n"
PING = b": ping\n\n"
CRLF2 = b"id: 2\r\ndata: two\r\n\r\n"
CR2 = CRLF2[:-1]

MEETINGS: dict[str, tuple[list[bytes], list[bytes], bytes]] = {
    "the same blocks": ([E2, MORE], [E2, MORE, E3], E2 + MORE + E3),
    "a comment on the one": ([E2, PING], [E2, E3, E4], E2 + PING + E3 + E4),
    "a comment on the other": ([E2, MORE], [E2, PING, MORE, E3], E2 + MORE + E3),
    "comments on both": ([E2, PING, MORE, PING], [E2, PING, PING, MORE, E3], E2 + PING + MORE + PING + E3),
    "an LF by itself on the one": ([CR2, b"\n"], [CRLF2, E3, E4], CRLF2 + E3 + E4),
    "an LF by itself on the other": ([CRLF2], [CR2, b"\n", E3], CRLF2 + b"\n" + E3),  # a line too many, which means nothing
    "an LF by itself on both": ([CR2], [CR2, b"\n", E3], CRLF2 + E3),
}


@pytest.mark.parametrize("case", MEETINGS)
@pytest.mark.parametrize("live_first", [False, True])
async def test_nothing_is_lost_or_repeated_where_a_catch_up_meets_the_live_stream(case: str, live_first: bool) -> None:
    private, public, expected = MEETINGS[case]
    wheel = TimerWheel(0.1)
    live, catch_up = opened(wheel)
    async with connected() as downstream:
        joined(catch_up, downstream, wheel)
        live.take(b"id: 1\ndata: one\n\n")
        live.fan_out.history.clear(1)  # so that it has to be asked for
        if live_first:
            live.take(public[0])
            take(catch_up, *private)
            live.take(*public[1:], LAST)
            expected = private[0] + b"".join(public[1:])  # it reads no further once it has met the live stream
        else:
            take(catch_up, *private)
            live.take(*public, LAST)
        assert await downstream.read(len(expected + LAST)) == expected + LAST
    await catch_up.following.stopped()
