"""A client that uses up the gateway's file descriptors: others are still served, or told to come back."""

import asyncio
import contextlib
import itertools
import json
from pathlib import Path

from tests.kit.downstream import Downstream, End
from tests.kit.gateway_process import GatewayProcess, meter, start_gateway
from tests.kit.upstream import EVENT_STREAM_HEAD, Asked, Script, ScriptedUpstream, Silence, chunk

DESCRIPTORS = 256
EVENT = b"id: 1\ndata: 1\n\n"
STRANGER = "127.0.0.2"
ACCEPT = ("Accept", "text/event-stream")
NUMBERS = itertools.count()
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def play(asked: Asked) -> Script:
    return [OK] if asked.target.startswith("/plain") else [EVENT_STREAM_HEAD, chunk(EVENT), Silence()]


def configure(directory: Path, upstream: str) -> str:
    config = directory / "gateway.toml"
    shared = f'[[routes]]\npath = "/topics"\nupstream = "{upstream}"\nmode = "shared"\nlinger_seconds = 3600\n'
    config.write_text(f'{shared}[[routes]]\npath = "/"\nupstream = "{upstream}"\n')
    return str(config)


def port_of(gateway: GatewayProcess) -> int:
    return int(gateway.url.rpartition(":")[2])


async def is_served(gateway: GatewayProcess) -> bool:
    """Whether a stranger with a connection of its own gets an answer from the upstream and a stream."""
    async with Downstream(port_of(gateway), source=STRANGER) as plain, Downstream(port_of(gateway), source=STRANGER) as stream:
        await plain.ask("/plain")
        answered = await (await plain.answer()).to_end() == b"ok"
        await stream.ask(f"/topics/news?{next(NUMBERS)}", headers=[ACCEPT])
        return answered and await (await stream.answer()).receive(len(EVENT)) == EVENT


async def test_lingering_streams_give_way_before_descriptors_run_out(tmp_path: Path) -> None:
    async with (
        ScriptedUpstream(play) as upstream,
        start_gateway(DESCRIPTORS, CONFIG=configure(tmp_path, upstream.url), MAX_STREAMS_PER_CLIENT="10000") as gateway,
    ):
        for number in range(2 * DESCRIPTORS):
            async with Downstream(port_of(gateway)) as client:
                await client.ask(f"/topics/made-up?{number}", headers=[ACCEPT])
                assert await (await client.answer()).receive(len(EVENT)) == EVENT
            if number % 64 == 0:
                assert await is_served(gateway)
        assert await is_served(gateway)
        [warning] = [fact for fact in gateway.log if fact["event"].startswith("few file descriptors")]
        assert (warning["limit"], warning["needed"]) == (DESCRIPTORS, 20_000)
        assert warning["max_streams_per_client"] <= warning["max_streams"] < DESCRIPTORS


async def test_connections_that_say_nothing_are_closed_before_others_are_refused(tmp_path: Path) -> None:
    async with (
        ScriptedUpstream(play) as upstream,
        start_gateway(DESCRIPTORS, CONFIG=configure(tmp_path, upstream.url)) as gateway,
        contextlib.AsyncExitStack() as stack,
    ):
        silent = [await stack.enter_async_context(Downstream(port_of(gateway))) for _ in range(2 * DESCRIPTORS)]
        assert await is_served(gateway)
        assert await silent[0].ended(30) in (End.RESET, End.CLOSED, End.CUT_SHORT)


async def test_requests_beyond_the_descriptors_are_answered_503_and_streams_go_on(tmp_path: Path) -> None:
    """The clients are many, or the limit per client would be reached first. An event source is told when to come back."""
    async with (
        ScriptedUpstream(play) as upstream,
        start_gateway(DESCRIPTORS, CONFIG=configure(tmp_path, upstream.url)) as gateway,
    ):
        async with contextlib.AsyncExitStack() as stack:
            followed, statuses = [], []
            for number in range(DESCRIPTORS):
                client = await stack.enter_async_context(Downstream(port_of(gateway), source=f"127.0.1.{1 + number % 100}"))
                await client.ask(f"/stream/{number}")
                answer = await client.answer()
                statuses.append(answer.head.status)
                if answer.head.status == 200:
                    assert await answer.receive(len(EVENT)) == EVENT
                    followed.append(answer)
                else:
                    assert json.loads(await answer.to_end())["error"]["code"] == "overload"
            assert set(statuses) == {200, 503}
            assert len(followed) > DESCRIPTORS / 8
            assert statuses.index(503) > DESCRIPTORS / 8
            async with Downstream(port_of(gateway), source=STRANGER) as source:
                await source.ask("/topics/news", headers=[ACCEPT])
                assert (await (await source.answer()).to_end()).startswith(b"retry: ")
            assert all(answer.end is None for answer in followed)
            assert meter(await gateway.metrics(), "gateway_rejected_total", reason="overload") >= statuses.count(503)
        async with asyncio.timeout(60):
            while meter(await gateway.metrics(), "gateway_open_requests"):
                await asyncio.sleep(0.05)
        assert await is_served(gateway)
