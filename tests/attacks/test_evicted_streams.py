"""A client that asks again and again for large kept streams that have left memory."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter
from typing import TypeVar

from tests.kit.downstream import Downstream, End
from tests.kit.routed_gateway import Gateway, running
from tests.kit.upstream import EVENT_STREAM_HEAD, LAST_CHUNK, Asked, Script, ScriptedUpstream, chunk

T = TypeVar("T")

BLOCKS = 60_000
STREAMS = 10
KEPT_BYTES = 8 * 2**20
"""Two of the large streams, of which one client may have one, half of all."""

_LARGE = chunk(b"data:\n\n" * 1000)


def play(asked: Asked) -> Script:
    """Answer with a large stream of small blocks, a small one, or no stream."""
    if asked.method == "GET":
        return [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"]
    return [EVENT_STREAM_HEAD, *([_LARGE] * (BLOCKS // 1000) if asked.target == "/ask/large" else [chunk(b"data:\n\n")]), LAST_CHUNK]


async def keep(gateway: Gateway, target: str) -> str:
    """Return the id of a stream that is complete."""
    async with Downstream(gateway.port) as client:
        await client.ask(target, "POST", body=b"{}")
        answer = await client.answer("POST")
        await answer.to_end()
    return answer.head.value("Stream-Id") or ""


async def evicted(gateway: Gateway) -> None:
    """Return when the client's streams have left memory, but for one."""
    async with asyncio.timeout(60):
        while await gateway.metric("gateway_kept_bytes") > KEPT_BYTES / 2:
            await asyncio.sleep(0.02)


async def head_of(gateway: Gateway, stream: str) -> tuple[str | None, str | None]:
    async with Downstream(gateway.port) as client:
        await client.ask(f"/streams/{stream}", "HEAD")
        head = (await client.answer("HEAD")).head
    assert head.status == 200
    return head.value("Stream-State"), head.value("Stream-Blocks")


async def body_of(gateway: Gateway, stream: str) -> bytes:
    """Return the body of a stream, for which a client comes back while the gateway says that it has no room."""
    for _ in range(1000):
        async with Downstream(gateway.port) as client:
            await client.ask(f"/streams/{stream}")
            answer = await client.answer()
            if answer.head.status == 200:
                body = await answer.to_end()
                assert answer.end is End.COMPLETE
                return body
            assert answer.head.status in (429, 503)
            assert answer.head.value("Retry-After") == "1"
        await asyncio.sleep(0.02)
    raise AssertionError("the gateway never had room for the stream")


async def worst_latency(gateway: Gateway, attack: Awaitable[object]) -> float:
    """Return the longest that another client waits for an answer while the attack goes on."""
    attacking, worst = asyncio.ensure_future(attack), 0.0
    async with Downstream(gateway.port) as client:
        while not attacking.done():
            begun = perf_counter()
            await client.ask("/quick")
            await (await client.answer()).to_end()
            worst = max(worst, perf_counter() - begun)
            await asyncio.sleep(0.002)
    await attacking
    return worst


async def together(count: int, call: Callable[[int], Awaitable[T]]) -> list[T]:
    return await asyncio.gather(*(call(number) for number in range(count)))


def reset_peak(gateway: Gateway) -> None:
    Path(f"/proc/{gateway.process.pid}/clear_refs").write_text("5")


def peak(gateway: Gateway) -> int:
    """Return the most resident memory since `reset_peak`, in bytes."""
    lines = Path(f"/proc/{gateway.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


async def test_evicted_streams_cost_other_clients_no_time_and_no_memory_beyond_the_limit(tmp_path: Path) -> None:
    async with ScriptedUpstream(play) as upstream:
        routes = [
            {"path": "/ask", "upstream": upstream.url, "mode": "resumable"},
            {"path": "/quick", "upstream": upstream.url, "mode": "direct"},
        ]
        async with running(routes, tmp_path, plain=True, max_kept_bytes=KEPT_BYTES) as gateway:
            small = await keep(gateway, "/ask/small")
            large = [await keep(gateway, "/ask/large") for _ in range(STREAMS + 3)][:STREAMS]
            await evicted(gateway)
            quiet = await worst_latency(gateway, together(STREAMS * 5, lambda _: head_of(gateway, small)))
            heads = await worst_latency(gateway, together(STREAMS * 5, lambda number: head_of(gateway, large[number % STREAMS])))
            assert heads < 10 * quiet, "blocks were loaded for a HEAD"
            assert await head_of(gateway, large[0]) == ("complete", str(BLOCKS))
            assert await gateway.metric("gateway_kept_bytes") <= KEPT_BYTES

            reset_peak(gateway)
            before, begun = gateway.memory(), perf_counter()
            loads = await worst_latency(gateway, together(STREAMS * 3, lambda number: body_of(gateway, large[number % STREAMS])))
            assert loads < (perf_counter() - begun) / 3, "the event loop waited for loads"
            body = await body_of(gateway, large[0])
            assert body.count(b"data:") == BLOCKS
            assert peak(gateway) - before < STREAMS * len(body), "all were in memory at once"


async def test_requests_for_one_evicted_stream_share_its_load(tmp_path: Path) -> None:
    async with ScriptedUpstream(play) as upstream:
        routes = [{"path": "/ask", "upstream": upstream.url, "mode": "resumable"}]
        async with running(routes, tmp_path, plain=True, max_kept_bytes=KEPT_BYTES) as gateway:
            large = [await keep(gateway, "/ask/large") for _ in range(4)]
            await evicted(gateway)
            reset_peak(gateway)
            before = gateway.memory()
            bodies = await together(20, lambda _: body_of(gateway, large[0]))
            assert len({*bodies}) == 1
            assert peak(gateway) - before < 10 * len(bodies[0])
