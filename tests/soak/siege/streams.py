"""Attacks by what streams leave behind: histories, kept answers, upstream connections, unread bytes."""

import asyncio
import contextlib

from tests.kit.downstream import Answer
from tests.soak.siege.attack import Attack, Attacker, status

HOLD_SECONDS = 30.0
"""For how long attackers hold what they have opened."""
_GARBAGE_BYTES = 2**20
_BACKLOG_EVENTS, _BACKLOG_BYTES = 20, 100_000
_TINY_BUFFER = 4096


async def _open_and_leave(attacker: Attacker, target: str, method: str = "GET", reset: bool = False) -> str:
    async with attacker.connect() as client:
        await client.ask(target, method, body=b"%d" % attacker.rounds if method == "POST" else b"")
        told = await status(client)
        if reset:
            client.reset()
        return told


async def _made_up_queries(attacker: Attacker) -> str:
    path = attacker.chance.choice(("silent", "one"))
    return await _open_and_leave(attacker, f"/evil/shared/{path}?made-up={attacker.rounds}", reset=attacker.rounds % 2 == 0)


async def _made_up_queries_of_topics(attacker: Attacker) -> str:
    return await _open_and_leave(attacker, f"/topics/trees.oak/events?made-up={attacker.rounds}")


async def _begin_anywhere(attacker: Attacker) -> str:
    return await _open_and_leave(attacker, f"/topics/trees.oak/events?since={attacker.rounds}s")


async def _post_and_leave(attacker: Attacker) -> str:
    return await _open_and_leave(attacker, "/evil/kept/endless", "POST")


async def _fill_the_store(attacker: Attacker) -> str:
    return await _open_and_leave(attacker, "/evil/kept/large", "POST")


async def _head_of_evicted(attacker: Attacker) -> str:
    """Ask for the heads of long answers, of which memory has no room for all."""
    if len(attacker.streams) < 2:
        async with attacker.connect() as client:
            await client.ask("/evil/long/blocks", "POST", body=b"%d" % attacker.rounds)
            answer = await client.answer()
            if (id := answer.head.value("Stream-Id")) is None:
                return str(answer.head.status)
            async for _ in answer.pieces():
                pass
        attacker.streams.append(id)
        return "made"
    id = attacker.chance.choice(attacker.streams)
    told = await attacker.ask(f"/streams/{id}", "HEAD")
    if told in ("404", "410") and id in attacker.streams:
        attacker.streams.remove(id)
    return told


async def _garbage(attacker: Attacker) -> str:
    """Send bytes that are not HTTP behind an open stream until that is reset."""
    garbage = attacker.chance.choice((b"\0", b"\xff", b"GET / HTTP/9.9\r\n"))
    async with attacker.connect() as client:
        await client.ask("/evil/shared/endless")
        if (told := await status(client)) != "200":
            return told
        await client.send(garbage * (_GARBAGE_BYTES // len(garbage)))
        return (await client.ended()).name


async def _bomb(attacker: Attacker) -> str:
    """Ask for an event stream that a content coding has made tiny, and return how it ends."""
    coding = attacker.chance.choice(("gzip", "br", "zstd"))
    mode, method = attacker.chance.choice((("direct", "GET"), ("shared", "GET"), ("kept", "POST")))
    async with attacker.connect() as client:
        await client.ask(f"/evil/{mode}/bomb-{coding}?{attacker.rounds}", method, body=b"x" if method == "POST" else b"")
        answer = await client.answer()
        if answer.head.status != 200:
            return str(answer.head.status)
        return f"{await _end(answer)} {coding}"


async def _large_event(attacker: Attacker) -> str:
    """Hold a stream of one large event under a URL of its own."""
    async with attacker.connect() as client:
        await client.ask(f"/evil/shared/megabyte?{attacker.rounds}")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HOLD_SECONDS):
                while await client.fill():
                    client.buffer.clear()
    return "held"


async def _backlog(attacker: Attacker) -> str:
    """Ask for a large backlog from a beginning of its own, and read none of it."""
    if attacker.rounds == 1:
        for _ in range(_BACKLOG_EVENTS):
            body = b'{"data": "flood %b"}' % (b"f" * _BACKLOG_BYTES)
            await attacker.ask("/topics/flood/events", "POST", [("Content-Type", "application/json")], body)
    return await _hold_unread(attacker, f"/topics/flood/events?since={100_000 + attacker.rounds}s")


async def _unread(attacker: Attacker) -> str:
    return await _hold_unread(attacker, f"/evil/direct/flood?{attacker.rounds}")


async def _hold_unread(attacker: Attacker, target: str) -> str:
    async with attacker.connect(_TINY_BUFFER) as client:
        await client.ask(target)
        await asyncio.sleep(HOLD_SECONDS)
    return "held"


async def _many_lines(attacker: Attacker) -> str:
    """Ask for an event of a million line ends, and return how the stream ends."""
    async with attacker.connect() as client:
        await client.ask(f"/evil/shared/lines?{attacker.rounds}")
        answer = await client.answer()
        if answer.head.status != 200:
            return str(answer.head.status)
        return await _end(answer)


async def _end(answer: Answer) -> str:
    """Read the answer for HOLD_SECONDS at most, and return how it ended, or `open`."""
    try:
        async with asyncio.timeout(HOLD_SECONDS):
            async for _ in answer.pieces():
                pass
    except TimeoutError:
        return "open"
    assert answer.end is not None
    return answer.end.name


_CUT = frozenset(("RESET", "CUT_SHORT"))
_BOMBS = frozenset(f"{end} {coding}" for end in _CUT for coding in ("gzip", "br", "zstd")) | {"COMPLETE gzip", "open gzip"}
"""gzip makes 128 MiB of 128 KiB at the least: slow readers are given all of it at a rate that is allowed."""
_OPEN = frozenset(("200",))
_HELD = frozenset(("held",))
STREAMS = (
    Attack(6, "made-up queries, left at once", _made_up_queries, _OPEN, 20),
    Attack(6, "made-up queries of topics", _made_up_queries_of_topics, frozenset(("400",)), 10),
    Attack(13, "beginnings anywhere, left at once", _begin_anywhere, _OPEN, 5),
    Attack(7, "POST of an endless answer, left at once", _post_and_leave, _OPEN, 5),
    Attack(7, "POST of 4 MiB, left at once", _fill_the_store, _OPEN, 0.25),
    Attack(4, "HEAD of evicted answers of 105,000 blocks", _head_of_evicted, frozenset(("200", "made", "404", "410")), 10, 1),
    Attack(2, "1 MiB of garbage behind an open stream", _garbage, _CUT | {"reset"}, 1),
    Attack(9, "compressed bombs of 128 MiB", _bomb, _BOMBS, 0.1),
    Attack(13, "events of 1 MiB, each under a URL of its own, held for 30 s", _large_event, _HELD, 0.5, 20),
    Attack(13, "backlogs of 2 MB from many beginnings, unread for 30 s", _backlog, _HELD, 0.5, 20),
    Attack(13, "an event of a million line ends", _many_lines, _CUT, 0.2),
    Attack(0, "floods of events, unread for 30 s", _unread, _HELD, 0.3, 20),
)
