"""Clients that fill the gateway's memory by histories, catch-ups, and bytes that they do not take."""

import asyncio
import contextlib
from pathlib import Path

from tests.kit.downstream import Answer, Downstream, End
from tests.kit.routed_gateway import Gateway, running, shared
from tests.kit.upstream import EVENT_STREAM_HEAD, Act, Asked, Flood, Script, ScriptedUpstream, Silence, chunk
from tests.kit.waiting import GUARD_SECONDS

MEGABYTE = 1_000_000
LIMIT = 16 * 2**20
LARGE = b"id: 1\ndata: " + b"x" * MEGABYTE + b"\n\n"
SMALL = b"id: s-1\ndata: a\n\nid: s-2\ndata: b\n\n"
STRANGER = "127.0.0.2"
ACCEPT = ("Accept", "text/event-stream")


async def subscribe(
    stack: contextlib.AsyncExitStack, gateway: Gateway, target: str, source: str = "127.0.0.1", last_event_id: str = "", **options: int
) -> Answer:
    client = await stack.enter_async_context(Downstream(gateway.port, source=source, **options))
    await client.ask(target, headers=[ACCEPT, *([("Last-Event-ID", last_event_id)] if last_event_id else [])])
    return await client.answer()


async def settled(gateway: Gateway) -> int:
    """Return the gateway's memory once it is idle."""
    before = gateway.memory()
    async with asyncio.timeout(GUARD_SECONDS):
        while True:
            await asyncio.sleep(0.5)
            now = gateway.memory()
            if abs(now - before) < 2**20:
                return now
            before = now


async def test_histories_of_made_up_urls_give_way_before_those_of_strangers(tmp_path: Path) -> None:
    count = 100

    def play(asked: Asked) -> Script:
        return [EVENT_STREAM_HEAD, chunk(SMALL if asked.target == "/ordinary" else LARGE), Silence()]

    async with (
        ScriptedUpstream(play) as upstream,
        running([shared("/", upstream.url)], tmp_path, plain=True, max_history_bytes=LIMIT) as gateway,
        contextlib.AsyncExitStack() as stack,
    ):
        ordinary = await subscribe(stack, gateway, "/ordinary", STRANGER)
        await ordinary.receive(len(SMALL))
        warm = await subscribe(stack, gateway, "/topic?made-up=warm")
        await warm.receive(len(LARGE))
        before = await settled(gateway)
        for number in range(count):
            answer = await subscribe(stack, gateway, f"/topic?made-up={number}")
            await answer.receive(len(LARGE))
            answer.body.clear()
            assert await gateway.metric("gateway_history_bytes") <= LIMIT + len(LARGE)
        assert await settled(gateway) - before < count * MEGABYTE / 3
        back = await subscribe(stack, gateway, "/ordinary", STRANGER, last_event_id="s-1")
        await back.receive_until(lambda body: b"data: b\n\n" in body)
        assert sum(asked.target == "/ordinary" for asked in upstream.requests) == 1


async def test_readers_that_never_read_hold_no_more_than_the_histories_may(tmp_path: Path) -> None:
    """Each asks for another beginning, so that the gateway fetches what follows for it alone."""
    count = 60

    def play(asked: Asked) -> Script:
        if "since" in asked.target:
            return [EVENT_STREAM_HEAD, Flood(LARGE.replace(b"id: 1", b"id: old"))]
        return [EVENT_STREAM_HEAD, chunk(SMALL), Silence()]

    async with (
        ScriptedUpstream(play) as upstream,
        running([shared("/", upstream.url, begin_parameters=["since"])], tmp_path, plain=True, max_history_bytes=LIMIT) as gateway,
        contextlib.AsyncExitStack() as stack,
    ):
        ordinary = await subscribe(stack, gateway, "/topic", STRANGER)
        await ordinary.receive(len(SMALL))
        before = await settled(gateway)
        for number in range(count):
            await subscribe(stack, gateway, f"/topic?since={number}", receive_buffer=4096)
        grown = await settled(gateway) - before
        assert await gateway.metric("gateway_history_bytes") <= LIMIT + len(LARGE)
        assert grown < count * 5 * 2**20 / 4
        assert ordinary.end is None


async def test_slow_readers_of_the_client_that_holds_the_most_are_cut_off_and_no_strangers(tmp_path: Path) -> None:
    """Many connections of one stream have the same bytes, which count once: these are not cut off, however many there are."""
    go = asyncio.Event()
    count = 30

    async def burst(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        writer.write(chunk(LARGE))

    async with (
        ScriptedUpstream([EVENT_STREAM_HEAD, chunk(SMALL), Act(burst), Silence()]) as upstream,
        running([shared("/", upstream.url, initial="history")], tmp_path, plain=True, max_history_bytes=LIMIT) as gateway,
        contextlib.AsyncExitStack() as stack,
    ):
        strangers = [await subscribe(stack, gateway, "/topic", STRANGER, receive_buffer=4096) for _ in range(count)]
        heavy = [await subscribe(stack, gateway, f"/topic?made-up={number}", receive_buffer=4096) for number in range(count)]
        for answer in (*strangers, *heavy):
            await answer.receive(len(SMALL))
        go.set()
        async with asyncio.timeout(GUARD_SECONDS):
            while await gateway.metric("gateway_streams_ended_total", verdict="behind") < count / 2:
                await asyncio.sleep(0.05)
        assert await gateway.metric("gateway_history_bytes") <= LIMIT + len(LARGE)
        for answer in strangers:
            assert LARGE in await answer.receive(len(SMALL) + len(LARGE))
            answer.body.clear()
        ends = [await answer.downstream.ended(GUARD_SECONDS) for answer in heavy if await is_cut_off(answer)]
        assert len(ends) >= count / 2
        assert set(ends) <= {End.RESET, End.CUT_SHORT}


async def is_cut_off(answer: Answer) -> bool:
    """Whether an answer ends before the large block has come."""
    return LARGE not in await answer.receive(len(SMALL) + len(LARGE))
