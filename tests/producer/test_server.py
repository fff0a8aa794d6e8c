import asyncio
import socket

import pytest

from producer.settings import Settings
from tests.kit.producer import serve
from tests.kit.waiting import GUARD_SECONDS

LAST_CHUNK = b"\r\n0\r\n\r\n"


async def connect(target: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a connection with a small receive buffer that has requested a stream and reads only when the test does."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=connection, limit=256_000)
    writer.write(f"GET {target} HTTP/1.1\r\nHost: producer\r\n\r\n".encode())
    return reader, writer


@pytest.mark.parametrize("path", ["/", "/plain"])
async def test_client_that_reads_nothing_for_too_long_is_disconnected(path: str) -> None:
    settings = Settings(send_timeout_seconds=0.2, interval_ms=0, text="x" * 100_000)
    async with serve(settings) as producer:
        reader, writer = await connect(f"{path}?split=word&repeat=1000", producer.port)
        await producer.holds_up_writing()
        await producer.meter_reaches("producer_streams_ended_total", 1)
        await producer.has_no_other_connection()
        assert await producer.meter("producer_streams_open") == 0
        async with asyncio.timeout(GUARD_SECONDS):
            received = await reader.read(-1)
        writer.close()
    assert not received.endswith(LAST_CHUNK)


async def test_slow_client_that_keeps_reading_is_not_disconnected() -> None:
    settings = Settings(send_timeout_seconds=1.5, interval_ms=0, text="x" * 200_000)
    async with serve(settings) as producer:
        reader, writer = await connect("/plain?split=word&repeat=200", producer.port)
        await producer.holds_up_writing()
        received = b""
        began = asyncio.get_running_loop().time()
        while not received.endswith(LAST_CHUNK):
            part = await reader.read(256_000)
            assert part, "cut off"
            received = received[-len(LAST_CHUNK) :] + part
            await asyncio.sleep(0.01)  # the pace of this client
        assert asyncio.get_running_loop().time() - began > settings.send_timeout_seconds
        writer.close()
