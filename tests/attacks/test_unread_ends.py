"""Clients that do not read the end of a complete answer, which nothing counted once the answer was over."""

import asyncio
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.kit.downstream import Downstream
from tests.kit.routed_gateway import running
from tests.kit.upstream import EVENT_STREAM_HEAD, LAST_CHUNK, Asked, Script, ScriptedUpstream, chunk
from tests.kit.waiting import GUARD_SECONDS

STRANGER = "127.0.0.2"
SIZES = (6_000_000, 6_100_000, 6_200_000)
"""More than the kernel takes for a connection."""


def one_large_block(asked: Asked) -> Script:
    size = int(asked.target.removeprefix("/"))
    return [EVENT_STREAM_HEAD, chunk(b"data: %b\n\n" % (b"x" * size)) + LAST_CHUNK]


def ask_and_read_nothing(port: int, size: int) -> socket.socket:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port))
    client.sendall(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % size)
    return client


async def status(port: int, source: str) -> int:
    async with Downstream(port, source=source) as client:
        await client.ask("/1")
        return (await client.answer()).head.status


@pytest.mark.parametrize("mode", ["direct", "shared"])
async def test_unread_end_counts_for_its_client_and_is_given_up(mode: str, tmp_path: Path) -> None:
    async with (
        ScriptedUpstream(one_large_block) as upstream,
        running([{"path": "/", "mode": mode, "upstream": upstream.url}], tmp_path, max_streams_per_client=len(SIZES)) as gateway,
    ):
        with ExitStack() as stack:
            for size in SIZES:
                stack.enter_context(ask_and_read_nothing(gateway.port, size))
            async with asyncio.timeout(GUARD_SECONDS):
                while len(upstream.requests) < len(SIZES) or not all(asked.left.is_set() for asked in upstream.requests):
                    await asyncio.sleep(0.01)
                assert await status(gateway.port, STRANGER) == 200
                assert await status(gateway.port, "127.0.0.1") == 429
                while await status(gateway.port, "127.0.0.1") == 429:
                    await asyncio.sleep(0.1)


async def test_end_that_its_client_reads_late_and_slowly_arrives_whole(tmp_path: Path) -> None:
    size = SIZES[0]
    async with (
        ScriptedUpstream(one_large_block) as upstream,
        running([{"path": "/", "upstream": upstream.url}], tmp_path) as gateway,
    ):
        with ask_and_read_nothing(gateway.port, size) as client:
            client.setblocking(False)
            received = bytearray()
            async with asyncio.timeout(GUARD_SECONDS):
                while not received.endswith(LAST_CHUNK):
                    received += await asyncio.get_running_loop().sock_recv(client, 32 * 1024)
                    await asyncio.sleep(0.05)
    assert received.count(b"x" * size) == 1
