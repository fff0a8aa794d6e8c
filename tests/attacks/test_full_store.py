"""A client whose short requests fill the disk with kept answers."""

import asyncio
import os
from pathlib import Path

import pytest

from tests.kit.downstream import Downstream
from tests.kit.routed_gateway import Gateway, running
from tests.kit.upstream import EVENT_STREAM_HEAD, LAST_CHUNK, Asked, Script, ScriptedUpstream, Silence, chunk

MEGABYTE = 2**20
STORE_BYTES = 16 * MEGABYTE
ATTACKER, STRANGER = "127.0.0.2", "127.0.0.1"
PART = chunk(b"data: %b\n\n" % (b"x" * MEGABYTE))


def play(asked: Asked) -> Script:
    """Answer with four megabytes, with four megabytes and no end, or with little."""
    if asked.target == "/ask/little":
        return [EVENT_STREAM_HEAD, chunk(b"data: little\n\n"), LAST_CHUNK]
    return [EVENT_STREAM_HEAD, *[PART] * 4, Silence() if asked.target == "/ask/endless" else LAST_CHUNK]


async def ask(gateway: Gateway, target: str, source: str = STRANGER, *, follow: bool = True) -> tuple[str, bytes]:
    """Return the id and the body of a new stream; without `follow`, leave it as soon as it has begun."""
    async with Downstream(gateway.port, source=source) as client:
        await client.ask(target, "POST", [("Idempotency-Key", os.urandom(8).hex())], b"{}" * 50)
        answer = await client.answer("POST")
        body = await answer.to_end() if follow else b""
    return answer.head.value("Stream-Id") or "", body


async def state_of(gateway: Gateway, stream: str) -> tuple[int, str | None]:
    async with Downstream(gateway.port) as client:
        await client.ask(f"/streams/{stream}", "HEAD")
        head = (await client.answer("HEAD")).head
    return head.status, head.value("Stream-State")


async def body_of(gateway: Gateway, stream: str) -> bytes:
    async with Downstream(gateway.port) as client:
        await client.ask(f"/streams/{stream}")
        return await (await client.answer()).to_end()


class Disk:
    """Watches how much a directory takes of the disk."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.most = 0

    async def watch(self) -> None:
        while True:
            self.most = max(self.most, sum(path.stat().st_size for path in self._directory.rglob("*") if path.is_file()))
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("workers", [1, 2])
async def test_disk_limit_holds_and_another_client_s_answer_stays(tmp_path: Path, workers: int) -> None:
    settings = {"max_store_bytes": STORE_BYTES * workers, "workers": workers, "max_kept_bytes": 64 * MEGABYTE * workers}
    async with ScriptedUpstream(play) as upstream:
        routes = [{"path": "/ask", "upstream": upstream.url, "mode": "resumable"}]
        async with running(routes, tmp_path, **settings) as gateway:
            disk = Disk(tmp_path / "data")
            watching = asyncio.create_task(disk.watch())
            stranger = await ask(gateway, "/ask/little")
            large = await ask(gateway, "/ask/large")
            attacks = [await ask(gateway, "/ask/large", ATTACKER) for _ in range(25 * workers)]
            watching.cancel()
        sent = sum(len(body) for _, body in attacks)
        assert sent > 5 * STORE_BYTES * workers
        assert disk.most < 1.1 * STORE_BYTES * workers
        async with running(routes, tmp_path, **settings) as gateway:
            for stream, body in (stranger, large):
                assert await body_of(gateway, stream) == body
            states = [await state_of(gateway, stream) for stream, _ in attacks]
            assert states[0] == (410, None)
            kept = states.count((200, "complete"))
            assert 0 < kept * len(attacks[0][1]) < 0.5 * STORE_BYTES * workers


async def test_stream_that_runs_goes_on_in_memory_when_its_client_has_filled_its_part_of_the_disk(tmp_path: Path) -> None:
    async with ScriptedUpstream(play) as upstream:
        routes = [{"path": "/ask", "upstream": upstream.url, "mode": "resumable"}]
        async with running(routes, tmp_path, max_store_bytes=STORE_BYTES) as gateway:
            stranger, _ = await ask(gateway, "/ask/endless", follow=False)
            attacks = [(await ask(gateway, "/ask/endless", ATTACKER, follow=False))[0] for _ in range(4)]
            async with asyncio.timeout(60):
                while "stream is kept in memory only" not in (tmp_path / "gateway.log").read_text():
                    await asyncio.sleep(0.02)
            assert [await state_of(gateway, stream) for stream in (stranger, *attacks)] == [(200, "running")] * 5
        async with running(routes, tmp_path, max_store_bytes=STORE_BYTES) as gateway:
            assert await state_of(gateway, stranger) == (200, "cut")
            states = [await state_of(gateway, stream) for stream in attacks]
            assert sorted({*states}) == [(200, "cut"), (410, None)]
