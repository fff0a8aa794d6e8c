"""A subscriber at the other end of a real connection."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from gateway.http.connection import Writing
from gateway.http.downstream import DownstreamProtocol
from gateway.http.downstream_server import DownstreamServer
from tests.kit.waiting import GUARD_SECONDS


class Downstream:
    """Both ends of a connection on the loopback interface: the gateway's transport, and the subscriber, who reads when asked to."""

    def __init__(self, protocol: DownstreamProtocol, subscriber: asyncio.StreamReader) -> None:
        assert protocol.transport is not None
        self.protocol = protocol
        self.transport: asyncio.Transport = protocol.transport
        self.subscriber = subscriber

    def written_by(self, writing: Writing) -> None:
        """Report pauses to `writing`, as the gateway does."""
        self.protocol.writing = writing

    async def read(self, size: int) -> bytes:
        async with asyncio.timeout(GUARD_SECONDS):
            return await self.subscriber.readexactly(size)


async def _refuse(request: web.BaseRequest) -> web.StreamResponse:
    raise AssertionError("no request is expected here")


@asynccontextmanager
async def connected() -> AsyncIterator[Downstream]:
    loop = asyncio.get_running_loop()
    options = {"head_seconds": GUARD_SECONDS, "max_head_bytes": 2**16, "rejected": lambda reason, status: None}
    manager = DownstreamServer(_refuse, connection=DownstreamProtocol, request_factory=None, **options)
    server = await loop.create_server(manager, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    subscriber, closer = await asyncio.open_connection(host, port, limit=1024)
    async with asyncio.timeout(GUARD_SECONDS):
        while not manager.connections:
            await asyncio.sleep(0)
    [protocol] = manager.connections
    assert isinstance(protocol, DownstreamProtocol)
    try:
        yield Downstream(protocol, subscriber)
    finally:
        closer.close()
        if protocol.transport is not None:
            protocol.transport.abort()
        server.close()
        await manager.shutdown(1)
