"""A reader that stalls slows its upstream, costs no memory, and affects no other stream."""

import asyncio
import hashlib
import re
from collections.abc import Callable
from functools import partial

import pytest

from tests.kit.downstream import End
from tests.kit.routed_gateway import Gateway
from tests.kit.stage import Stage
from tests.kit.upstream import Act, Flood, Pause, chunk
from tests.kit.waiting import GUARD_SECONDS
from tests.proxy.concurrently import all_hold
from tests.proxy.conftest import IDLE_SECONDS, Converse
from tests.proxy.streams import HEAD, LAST_CHUNK, numbered_blocks

pytestmark = pytest.mark.asyncio(loop_scope="session")

MIB = 2**20
BLOCKS_PER_CHUNK = 64
FLOOD = Flood(numbered_blocks(0, BLOCKS_PER_CHUNK))


class NumberedFlood:
    """Sends numbered blocks as fast as the proxy reads until `finish`; then ends the stream cleanly."""

    def __init__(self) -> None:
        self.sent = 0
        self.digest = hashlib.sha256()
        self._finish = False

    def finish(self) -> None:
        self._finish = True

    async def play(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = 0
        while not self._finish:
            blocks = numbered_blocks(number, BLOCKS_PER_CHUNK)
            number += BLOCKS_PER_CHUNK
            self.digest.update(blocks)
            writer.write(chunk(blocks))
            await writer.drain()
            self.sent += len(blocks)
            await asyncio.sleep(0)  # drain() alone lets no other task run while the kernel accepts all data
        writer.write(LAST_CHUNK)


async def stops(progress: Callable[[], int]) -> None:
    """Return when there has been no progress for half a second. Fail when more bytes were sent than kernels buffer."""
    before = 0
    while not before or progress() != before:
        assert progress() < 100 * MIB, "the sender is not slowed"
        before = progress()
        await asyncio.sleep(0.5)


async def warm_up(converse: Converse) -> None:
    """Allocate the proxy's working memory before it is measured: busy streams whose clients read."""

    async def read() -> None:
        async with converse(HEAD, Flood(FLOOD.block, count=200), LAST_CHUNK) as talk:
            async for _ in (await talk.answer()).pieces():
                pass

    await all_hold({f"stream {number}": read() for number in range(4)})


@pytest.mark.parametrize("target", ["/plain", "/heartbeat"])
async def test_stalled_reader_slows_its_upstream_and_costs_no_memory(converse_freshly: Converse, fresh_proxy: Gateway, target: str) -> None:
    await warm_up(converse_freshly)
    flood = NumberedFlood()
    async with converse_freshly(HEAD, Act(flood.play), target=target, receive_buffer=4096) as talk:
        answer = await talk.answer()
        before = fresh_proxy.memory()
        await stops(lambda: flood.sent)
        grown = fresh_proxy.memory() - before
        assert flood.sent > 0
        assert grown <= MIB, f"memory grew by {grown} bytes while upstream sent {flood.sent}"
        flood.finish()
        talk.downstream.widen()
        body = await answer.to_end()
        assert answer.end is End.COMPLETE
        blocks = re.sub(rb"^:\n\n", b"", body, flags=re.MULTILINE)  # the upstream may be silent for long enough when the machine is busy
        assert hashlib.sha256(blocks).hexdigest() == flood.digest.hexdigest()


async def test_many_stalled_readers_cost_a_bounded_amount_each(converse_freshly: Converse, fresh_proxy: Gateway) -> None:
    await warm_up(converse_freshly)
    before = fresh_proxy.memory()

    async def stall() -> None:
        flood = NumberedFlood()
        async with converse_freshly(HEAD, Act(flood.play), receive_buffer=4096) as talk:
            await talk.answer()
            await stops(lambda: flood.sent)
            stalled.append(flood)
            if len(stalled) == count:
                all_stalled.set()
            await measured.wait()

    count, stalled = 20, list[NumberedFlood]()
    all_stalled, measured = asyncio.Event(), asyncio.Event()
    stalls = asyncio.create_task(all_hold({f"reader {number}": stall() for number in range(count)}))
    await asyncio.wait({stalls, asyncio.create_task(all_stalled.wait())}, return_when=asyncio.FIRST_COMPLETED)
    grown = fresh_proxy.memory() - before
    measured.set()
    await stalls
    assert grown <= count * MIB, f"memory grew by {grown} bytes for {count} readers"


async def test_other_streams_keep_their_pace_beside_a_stalled_reader(converse: Converse) -> None:
    """Compare their pace with that before the reader stalled: a busy machine slows them too."""

    async def play_ping_pong() -> float:
        pauses = [Pause() for _ in range(100)]
        async with converse(HEAD, *(step for pause in pauses for step in (chunk(b"data: x\n\n"), pause))) as lively:
            answer = await lively.answer()
            begun = asyncio.get_running_loop().time()
            for number, pause in enumerate(pauses, 1):
                assert await answer.receive(number * 9) == b"data: x\n\n" * number
                pause.go()
            return asyncio.get_running_loop().time() - begun

    alone = await play_ping_pong()
    flood = NumberedFlood()
    async with converse(HEAD, Act(flood.play), receive_buffer=4096) as stalled:
        await stalled.answer()
        await stops(lambda: flood.sent)
        assert await play_ping_pong() < 2 + 5 * alone


async def test_idle_timeout_does_not_apply_while_the_reader_stalls(converse: Converse, gateway: None) -> None:
    """The upstream is not silent: it is not being read."""
    flood = NumberedFlood()
    async with converse(HEAD, Act(flood.play), target="/idle", receive_buffer=4096) as talk:
        answer = await talk.answer()
        await stops(lambda: flood.sent)
        await asyncio.sleep(IDLE_SECONDS + 0.5)
        flood.finish()
        talk.downstream.widen()
        received = 0
        async for piece in answer.pieces(timeout=30):
            received += len(piece.replace(b":\n\n", b""))
        assert answer.end is End.COMPLETE
        assert received >= flood.sent


async def test_upstream_connections_serve_again_after_streams_that_ended_while_their_readers_stalled(converse: Converse) -> None:
    async def stall_at_the_end(stream: bytes) -> None:
        async with converse(HEAD, chunk(stream), LAST_CHUNK, receive_buffer=4096) as talk:
            answer = await talk.answer()
            await stops(partial(getattr, await talk.scene.asked(), "sent_bytes"))
            talk.downstream.widen()
            assert await answer.to_end() == stream

    async def ask_again() -> None:
        async with converse(HEAD, chunk(b"data: x\n\n"), pause, LAST_CHUNK) as talk:
            answer = await talk.answer()
            assert await answer.receive(9) == b"data: x\n\n"
            pause.go()  # only now, so that all connections are in use at once
            await answer.to_end()

    sizes = [100_000, 300_000, 600_000, 1_000_000, 3_000_000, 5_000_000]
    many = {f"blocks of {size} bytes in all": stall_at_the_end(numbered_blocks(0, size // 256)) for size in sizes}
    one = {f"one block of {size} bytes": stall_at_the_end(b"data: " + b"x" * size + b"\n\n") for size in sizes}
    await all_hold(many | one)
    pause = Pause()
    await all_hold({f"request {number}": ask_again() for number in range(2 * len(sizes))})


async def test_data_that_comes_together_with_the_head_is_not_lost(converse: Converse) -> None:
    """A flat-out upstream sends much data before its head has been read."""

    async def passes(size: int) -> None:
        stream = numbered_blocks(0, size // 256)
        pieces = b"".join(chunk(stream[at : at + 5000]) for at in range(0, len(stream), 5000))
        async with converse(HEAD + pieces + LAST_CHUNK) as talk:
            answer = await talk.answer()
            digest = hashlib.sha256()
            async for piece in answer.pieces(timeout=20):
                digest.update(piece)
            assert answer.end is End.COMPLETE
            assert digest.digest() == hashlib.sha256(stream).digest()

    await all_hold({f"{size} bytes": passes(size) for size in range(100_000, 1_000_001, 60_000)})


@pytest.mark.parametrize("way", ["close", "reset", "half_close"])
async def test_stalled_reader_that_leaves_frees_its_upstream(converse: Converse, way: str) -> None:
    flood = NumberedFlood()
    async with converse(HEAD, Act(flood.play), receive_buffer=4096) as talk:
        await talk.answer()
        await stops(lambda: flood.sent)
        getattr(talk.downstream, way)()
        await talk.scene.left()


SHORT = (HEAD, chunk(b"data: x\n\n"), LAST_CHUNK)


async def seconds_of_a_request(converse: Converse) -> float:
    """Return how long a short stream takes through the proxy."""
    begun = asyncio.get_running_loop().time()
    async with converse(*SHORT) as talk:
        assert await (await talk.answer()).to_end() == b"data: x\n\n"
    return asyncio.get_running_loop().time() - begun


async def seconds_past_the_proxy(stage: Stage) -> float:
    """Return how long the same takes from the upstream itself."""
    scene = stage.scene(*SHORT)
    ((name, value),) = scene.headers
    begun = asyncio.get_running_loop().time()
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.port, ssl=stage.client_context())
    writer.write(f"GET / HTTP/1.1\r\n{name}: {value}\r\n\r\n".encode())
    async with asyncio.timeout(GUARD_SECONDS):
        assert (await reader.readuntil(LAST_CHUNK)).endswith(b"".join(SHORT[1:]))
    writer.close()
    return asyncio.get_running_loop().time() - begun


async def test_flat_out_streams_starve_no_other_stream(converse: Converse, stage: Stage) -> None:
    """Run twenty floods: all progress alike, and a new request waits for its turn, not for the floods.

    The floods keep this test busy too, so a direct request measures the machine.
    """
    read = [0] * 20
    all_begun, enough = asyncio.Event(), asyncio.Event()

    async def drink(number: int) -> None:
        async with converse(HEAD, FLOOD) as talk:
            answer = await talk.answer()
            async for piece in answer.pieces():
                read[number] += len(piece)
                if all(read):
                    all_begun.set()
                if enough.is_set():
                    return

    drinking = asyncio.create_task(all_hold({f"flood {number}": drink(number) for number in range(20)}))
    async with asyncio.timeout(GUARD_SECONDS):
        await all_begun.wait()
    before = list(read)
    waits, direct_waits = [], []
    for _ in range(5):
        waits.append(await seconds_of_a_request(converse))
        direct_waits.append(await seconds_past_the_proxy(stage))
    async with asyncio.timeout(GUARD_SECONDS):
        while min(progress := [now - then for now, then in zip(read, before, strict=True)]) < 4 * MIB:
            await asyncio.sleep(0.05)
    enough.set()
    await drinking
    assert sorted(waits)[2] < 1 + 5 * sorted(direct_waits)[2], f"new requests took {waits} s, past the proxy {direct_waits} s"
    assert min(progress) * 10 > max(progress), f"read by each: {progress}"


async def test_large_download_passes_in_bounded_memory(converse_freshly: Converse, fresh_proxy: Gateway) -> None:
    await warm_up(converse_freshly)
    size = 50 * MIB
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n" % size
    piece = bytes(range(256)) * 256
    before = fresh_proxy.memory()
    async with converse_freshly(head, *[piece] * (size // len(piece))) as talk:
        answer = await talk.answer()
        assert answer.head.value("Content-Length") == str(size)
        digest, grown = hashlib.sha256(), 0
        async for part in answer.pieces():
            digest.update(part)
            grown = max(grown, fresh_proxy.memory() - before)
        assert digest.hexdigest() == hashlib.sha256(piece * (size // len(piece))).hexdigest()
        assert grown <= 4 * MIB, f"memory grew by {grown} bytes"


async def test_large_upload_waits_for_an_upstream_that_does_not_read(converse_freshly: Converse, fresh_proxy: Gateway) -> None:
    await warm_up(converse_freshly)
    size = 50 * MIB
    piece = bytes(range(256)) * 256
    go = asyncio.Event()
    digest = hashlib.sha256()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        for _ in range(size // len(piece)):
            digest.update(await reader.readexactly(len(piece)))
        writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")

    headers = [("Content-Length", str(size))]
    async with converse_freshly(Act(take), method="PUT", headers=headers, read_body=False) as talk:
        before = fresh_proxy.memory()
        sent = 0

        async def upload() -> None:
            nonlocal sent
            for _ in range(size // len(piece)):
                await talk.downstream.send(piece)
                sent += len(piece)

        uploading = asyncio.create_task(upload())
        await stops(lambda: sent)
        grown = fresh_proxy.memory() - before
        go.set()
        async with asyncio.timeout(30):
            await uploading
        assert (await talk.answer()).head.status == 201
        assert (await talk.scene.asked()).header("Content-Length") == str(size)
        assert digest.hexdigest() == hashlib.sha256(piece * (size // len(piece))).hexdigest()
        assert grown <= 4 * MIB, f"memory grew by {grown} bytes"
