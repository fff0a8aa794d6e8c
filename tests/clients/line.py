"""The line between a client and the gateway: a TCP relay that records its traffic, and that a test can cut like a lost network."""

import asyncio
import contextlib
import socket
import struct
from types import TracebackType
from typing import Self

from tests.kit.upstream import LAST_CHUNK
from tests.kit.waiting import GUARD_SECONDS

_READ_BYTES = 64 * 1024


class Line:
    """Relay every connection to `port` of 127.0.0.1, until it is cut or a side closes it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connections: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}
        self._news = asyncio.Condition()
        self.received = b""
        """Bytes that the gateway has sent on all connections, in order of arrival, with heads and HTTP chunks."""
        self.sent = b""
        """Bytes that the clients have sent."""
        self._held_after = b""
        self._was_cut = asyncio.Event()
        self._is_reachable = asyncio.Event()
        self._is_reachable.set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.close()
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    def hold_after(self, piece: bytes) -> None:
        """Relay the gateway's bytes up to the end of the next `piece`, which must arrive in one read, and hold the rest until a cut."""
        self._held_after = piece

    def hold_connections(self) -> None:
        """Accept new connections, but let them wait until the gateway is said to be reachable."""
        self._is_reachable.clear()

    def release_connections(self) -> None:
        self._is_reachable.set()

    def cut(self) -> None:
        """Reset the open connections on both sides and drop their held bytes. New connections are relayed."""
        self._held_after = b""
        self._was_cut.set()
        self._was_cut = asyncio.Event()
        for writers in self._connections.values():
            for writer in writers:
                # without lingering the kernel forgets what is unsent and sends RST instead of FIN
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()

    def end(self) -> None:
        """End the answers on all open connections in order, as a proxy does that lost its own upstream. They must be in HTTP chunks."""
        for client, *gateways in self._connections.values():
            client.write(LAST_CHUNK)
            client.close()
            for gateway in gateways:
                gateway.transport.abort()

    async def passes(self, piece: bytes, times: int = 1) -> None:
        """Wait until the gateway has sent `piece` this many times since the line was opened."""
        async with asyncio.timeout(GUARD_SECONDS), self._news:
            await self._news.wait_for(lambda: self.received.count(piece) >= times)

    async def carries(self, piece: bytes, times: int = 1) -> None:
        """Wait until clients have sent `piece` this many times since the line was opened."""
        async with asyncio.timeout(GUARD_SECONDS), self._news:
            await self._news.wait_for(lambda: self.sent.count(piece) >= times)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = [writer]
        try:
            await self._is_reachable.wait()
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
            self._connections[task].append(far_writer)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, far_writer, from_gateway=False))
                group.create_task(self._pump(far_reader, writer, from_gateway=True))
        except asyncio.CancelledError:
            pass  # the test is over; without this the streams' callback would log the cancelled task
        finally:
            for end in self._connections.pop(task):
                end.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, from_gateway: bool) -> None:
        with contextlib.suppress(ConnectionError):  # this side is gone; the other one is closed below
            while data := await reader.read(_READ_BYTES):
                if from_gateway and self._held_after and self._held_after in data:
                    writer.write(data[: data.index(self._held_after) + len(self._held_after)])
                    await self._was_cut.wait()
                    break
                writer.write(data)
                await writer.drain()
                async with self._news:
                    if from_gateway:
                        self.received += data
                    else:
                        self.sent += data
                    self._news.notify_all()
        writer.close()
