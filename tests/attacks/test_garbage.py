"""Bytes that are not HTTP behind an open stream: nothing keeps them, and a client that sends on is cut off."""

import asyncio

import pytest

from tests.kit.downstream import Downstream
from tests.kit.gateway_process import start_gateway
from tests.kit.stack import resident_bytes
from tests.kit.upstream import EVENT_STREAM_HEAD, ScriptedUpstream, Silence, chunk
from tests.kit.waiting import GUARD_SECONDS

EVENT = b"data: 1\n\n"
CONNECTIONS, SENT_BYTES = 10, 4 * 1024 * 1024


@pytest.mark.parametrize("garbage", [b"\0", b"\xff", b"GET / HTTP/9.9\r\n", b"x" * 100 + b"\r\n"], ids=["nul", "ff", "version", "lines"])
async def test_garbage_behind_an_open_stream_is_not_kept(garbage: bytes) -> None:
    async with (
        ScriptedUpstream([EVENT_STREAM_HEAD, chunk(EVENT), Silence()]) as upstream,
        start_gateway(plain=True, UPSTREAM=upstream.url) as gateway,
    ):
        port = int(gateway.url.rpartition(":")[2])

        async def attack() -> None:
            async with Downstream(port) as client:
                await client.ask("/stream")
                await (await client.answer()).receive(len(EVENT))
                with pytest.raises(ConnectionError):
                    await client.send(garbage * (SENT_BYTES // len(garbage)))

        await attack()
        before = resident_bytes(gateway.pid)
        async with asyncio.timeout(GUARD_SECONDS):
            await asyncio.gather(*(attack() for _ in range(CONNECTIONS)))
        assert resident_bytes(gateway.pid) - before < CONNECTIONS * SENT_BYTES / 4
