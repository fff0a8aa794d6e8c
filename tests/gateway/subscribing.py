"""A subscriber at the other end of a real connection."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_writer import StreamWriter

GUARD_SECONDS = 10.0


class Downstream:
    """Both ends of a connection on the loopback interface: the gateway's writer, and the subscriber, who reads when he is asked to."""

    def __init__(self, writer: StreamWriter, transport: asyncio.Transport, subscriber: asyncio.StreamReader) -> None:
        self.writer = writer
        self.transport = transport
        self.subscriber = subscriber

    async def read(self, size: int) -> bytes:
        async with asyncio.timeout(GUARD_SECONDS):
            return await self.subscriber.readexactly(size)


@asynccontextmanager
async def connected() -> AsyncIterator[Downstream]:
    loop = asyncio.get_running_loop()
    accepted: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = loop.create_future()
    server = await asyncio.start_server(lambda *ends: accepted.set_result(ends), "127.0.0.1", 0, limit=1024)
    transport, protocol = await loop.create_connection(lambda: BaseProtocol(loop), *server.sockets[0].getsockname())
    subscriber, closer = await accepted
    try:
        yield Downstream(StreamWriter(protocol, loop), transport, subscriber)
    finally:
        transport.abort()
        closer.close()
        server.close()
