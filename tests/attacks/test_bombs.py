"""An upstream whose small compressed body becomes gigabytes: it is decoded in turns, and ends as cut."""

import asyncio
import time
import zlib
from collections.abc import AsyncIterator

import brotli
import pytest
import pytest_asyncio
import zstandard

from tests.kit.downstream import Downstream
from tests.kit.routed_gateway import Gateway, running
from tests.kit.stack import service_command
from tests.kit.upstream import LAST_CHUNK, Asked, Script, ScriptedUpstream, chunk
from tests.kit.waiting import GUARD_SECONDS

pytestmark = pytest.mark.asyncio(loop_scope="module")

BLOCK = b"data: " + b"x" * 1000 + b"\n\n"
BOMB_BYTES, LEAST_BYTES = 64 * 2**20, 16 * 2**20
FLOOD_BYTES = LEAST_BYTES
MODES = ("direct", "shared", "resumable")
QUIET = "/quiet"
END = b"\r\n" + LAST_CHUNK
TIMELESS = service_command("gateway", constants={"eventstream.decoding._DECODED_BYTES_PER_SECOND": 0})
"""A gateway that allows no more growth to a body that takes long, as it does on a busy machine."""


def zlib_bomb(wbits: int, size: int) -> bytes:
    compressor = zlib.compressobj(9, wbits=wbits)
    pieces = [compressor.compress(BLOCK * 1000) for _ in range(size // (len(BLOCK) * 1000))]
    return b"".join([*pieces, compressor.flush()])


def bomb(coding: str, size: int = BOMB_BYTES) -> bytes:
    """Event blocks of about `size` bytes, compressed as well as the coding can."""
    match coding:
        case "br":
            return bytes(brotli.compress(BLOCK * (size // len(BLOCK)), quality=5, lgwin=24))
        case "zstd":
            return zstandard.ZstdCompressor(level=3).compress(BLOCK * (size // len(BLOCK)))
    return zlib_bomb(31 if coding == "gzip" else 15, size)


BOMBS = ("gzip", "deflate", "br", "zstd")
GROWN = ("br", "zstd")
"""Those that can grow by more than what repetitive streams do."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    """Start a gateway whose upstream answers with a bomb in the coding that the query names, or with a flood without one."""
    bombs = {coding: bomb(coding) for coding in BOMBS}
    assert all(len(bombs[coding]) < BOMB_BYTES / (1000 if coding in GROWN else 400) for coding in BOMBS)
    flood = chunk(BLOCK * (FLOOD_BYTES // len(BLOCK)))

    def play(asked: Asked) -> Script:
        path, _, coding = asked.target.partition("?")
        if path == QUIET:
            return [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"]
        coded = b"Content-Encoding: %b\r\n" % coding.encode() if coding else b""
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n%bTransfer-Encoding: chunked\r\n\r\n" % coded
        return [head, chunk(bombs[coding]) if coding else flood, LAST_CHUNK]

    async with ScriptedUpstream(play) as upstream:
        routes = [{"path": f"/{mode}", "upstream": upstream.url, "mode": mode, "heartbeat_seconds": 0} for mode in MODES]
        routes[MODES.index("shared")]["initial"] = "history"
        # More than the growth that is always allowed, which is to end it first.
        routes[MODES.index("resumable")] |= {"methods": ["GET"], "max_stream_bytes": LEAST_BYTES * 2}
        quiet = {"path": QUIET, "upstream": upstream.url, "mode": "direct"}
        async with running([quiet, *routes], tmp_path_factory.mktemp("bombs"), command=TIMELESS, plain=True) as gateway:
            yield gateway


async def ask_quietly(port: int) -> float:
    """How long another client waits for a small answer."""
    began = time.perf_counter()
    async with Downstream(port) as client:
        await client.ask(QUIET)
        await (await client.answer()).to_end()
    return time.perf_counter() - began


async def watch(gateway: Gateway, over: asyncio.Event) -> tuple[float, int]:
    """Another client's worst latency, and the gateway's memory at its highest, until it is over."""
    worst, highest = 0.0, 0
    while not over.is_set():
        worst, highest = max(worst, await ask_quietly(gateway.port)), max(highest, gateway.memory())
        await asyncio.sleep(0.001)
    return worst, highest


async def receive(port: int, target: str, most_bytes: int) -> int:
    """Ask, and return how many bytes came until the end, a clean one too, or `most_bytes`."""
    loop, size, end = asyncio.get_running_loop(), 0, b""
    async with Downstream(port) as client:
        await client.ask(target)
        async with asyncio.timeout(4 * GUARD_SECONDS):
            while size < most_bytes and not end.endswith(END):
                try:
                    received = await loop.sock_recv(client.socket, 2**18)
                except ConnectionResetError:
                    break
                if not received:
                    break
                size += len(received)
                end = (end + received[-len(END) :])[-len(END) :]
    return size


async def attack(gateway: Gateway, target: str, most_bytes: int) -> tuple[int, float, int]:
    """Return the received bytes, another client's worst latency, and the highest memory meanwhile."""
    over = asyncio.Event()
    watching = asyncio.create_task(watch(gateway, over))
    try:
        size = await receive(gateway.port, target, most_bytes)
    finally:
        over.set()
    worst, highest = await watching
    return size, worst, highest


@pytest.mark.parametrize("mode", MODES)
async def test_bomb_holds_others_up_no_more_than_a_stream_that_is_not_compressed(gateway: Gateway, mode: str) -> None:
    worst_quiet = max([await ask_quietly(gateway.port) for _ in range(50)])
    _, worst_flooded, _ = await attack(gateway, f"/{mode}", FLOOD_BYTES)
    for coding in BOMBS:
        before = gateway.memory()
        size, worst, highest = await attack(gateway, f"/{mode}?{coding}", 2 * LEAST_BYTES)
        assert size > LEAST_BYTES / 2
        assert worst < 10 * max(worst_quiet, worst_flooded, 0.05)  # the fault took seconds
        assert highest - before < BOMB_BYTES * 3 / 4
    assert await gateway.metric("gateway_open_streams") == 0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("coding", GROWN)
async def test_stream_that_grows_by_more_than_any_real_one_is_cut(gateway: Gateway, mode: str, coding: str) -> None:
    size = await receive(gateway.port, f"/{mode}?{coding}", 2 * BOMB_BYTES)
    assert LEAST_BYTES / 2 < size < BOMB_BYTES / 2
    closed = [line for line in gateway.process.log() if line["event"] == "stream closed" and line["route"] == f"/{mode}"][-1]
    assert closed["verdict"] == "cut"
    assert "bytes of the compressed body decoded to" in closed["reason"]
