"""An HTTP/1.1 server that sends exactly the bytes that a test specifies, and records its requests."""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

EVENT_STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


def chunk(body: bytes) -> bytes:
    """Return one HTTP chunk."""
    return b"%x\r\n%s\r\n" % (len(body), body)


class Pause:
    """A step that waits until the test calls `go()`; `reached` is set when the script has come to it."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self._go = asyncio.Event()

    def go(self) -> None:
        self._go.set()

    async def wait(self) -> None:
        self.reached.set()
        await self._go.wait()


@dataclass(frozen=True)
class Disconnect:
    """A step that ends the connection: in order, with `reset` (RST), or `unannounced`: over TLS a FIN without a close_notify."""

    reset: bool = False
    unannounced: bool = False


@dataclass(frozen=True)
class Flood:
    """A step that sends `block` in HTTP chunks as fast as the peer reads, until it leaves or `count` is reached."""

    block: bytes
    count: int | None = None


@dataclass(frozen=True)
class Silence:
    """A step that sends nothing until the peer leaves."""


@dataclass(frozen=True)
class Act:
    """A step that passes the connection to the test's own function until it returns."""

    play: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def swallow(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Play an upstream that reads everything and sends nothing, until the peer leaves."""
    while await reader.read(2**16):
        pass


Step = bytes | Pause | Disconnect | Flood | Silence | Act
Script = Sequence[Step]


@dataclass
class Asked:
    """A received request."""

    method: str
    target: str
    version: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the connection of this request is gone."""
    sent_bytes: int = 0
    """Bytes of the answer that the connection accepted (`Act` steps not counted)."""

    def header(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        return ", ".join(values) if values else None


class ScriptedUpstream:
    """Plays one script per request: the n-th request gets the n-th script, the last script serves all further ones.

    A script is a sequence of bytes (sent unchanged, each in one write), `Pause`, `Flood`, `Silence`, `Act` and `Disconnect`; or a
    function from `Asked` to such a sequence. After its last step the connection stays open for a next request unless the step
    was `Disconnect`.
    Request bodies are read first, unless `read_body` is False or, called with the request's head, returns False.
    It may be opened again after it was closed, on the same port; `port` 0 takes a free one the first time. With `tls` it speaks HTTPS.
    """

    def __init__(
        self,
        *scripts: Script | Callable[[Asked], Script],
        read_body: bool | Callable[[Asked], bool] = True,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._scripts = scripts
        self._read_body = read_body
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._arrived = asyncio.Condition()
        self.port = port
        self._tls = tls
        self.requests: list[Asked] = []
        self.sent_bytes = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, limit=2**20, backlog=4096, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._server is not None
        self._server.close()
        for connection in list(self._connections):
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def wait_for_requests(self, count: int, timeout: float = 30) -> None:
        """Return when `count` requests have come."""
        async with asyncio.timeout(timeout), self._arrived:
            await self._arrived.wait_for(lambda: len(self.requests) >= count)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        asked_here: list[Asked] = []
        try:
            while (asked := await self._read_request(reader, writer)) is not None:
                asked_here.append(asked)
                async with self._arrived:
                    index = len(self.requests)
                    self.requests.append(asked)
                    self._arrived.notify_all()
                script = self._scripts[min(index, len(self._scripts) - 1)]
                if not await self._play(script(asked) if callable(script) else script, asked, reader, writer):
                    break
        except (ConnectionError, ssl.SSLError, asyncio.CancelledError):
            pass  # the peer left or the test is over: either way the finally below records it
        finally:
            for asked in asked_here:
                asked.left.set()
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _read_request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Asked | None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        method, target, version = first.split(" ")
        headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        asked = Asked(method, target, version, headers)
        if self._read_body(asked) if callable(self._read_body) else self._read_body:
            asked.body = await self._read_request_body(asked, reader, writer)
        return asked

    @staticmethod
    async def _read_request_body(asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        if (asked.header("Expect") or "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if (asked.header("Transfer-Encoding") or "").lower() == "chunked":
            chunks = []
            while (size := int(await reader.readline(), 16)) > 0:
                chunks.append(await reader.readexactly(size))
                await reader.readline()
            await reader.readline()
            return b"".join(chunks)
        return await reader.readexactly(int(asked.header("Content-Length") or 0))

    async def _play(self, script: Script, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        for step in script:
            match step:
                case bytes():
                    writer.write(step)
                    await writer.drain()
                    self._count(asked, len(step))
                case Pause():
                    await self._until_left(step.wait(), reader)
                case Silence():
                    await self._until_left(asyncio.Event().wait(), reader)
                case Flood(block, count):
                    piece = chunk(block)
                    sent = 0
                    while count is None or sent < count:
                        writer.write(piece)
                        await writer.drain()
                        self._count(asked, len(piece))
                        await asyncio.sleep(0)  # drain() alone lets no other task run while the kernel accepts all data
                        sent += 1
                case Act(play):
                    await play(reader, writer)
                case Disconnect(reset, unannounced):
                    if reset:
                        sock = writer.get_extra_info("socket")
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        writer.transport.abort()
                    elif unannounced and writer.get_extra_info("ssl_object") is not None:
                        sock = writer.get_extra_info("socket")
                        with socket.fromfd(sock.fileno(), sock.family, sock.type) as tcp:
                            tcp.shutdown(socket.SHUT_WR)
                    return False
        return True

    def _count(self, asked: Asked, sent: int) -> None:
        asked.sent_bytes += sent
        self.sent_bytes += sent

    @staticmethod
    async def _until_left(waiting: Coroutine[None, None, object], reader: asyncio.StreamReader) -> None:
        """Wait, but no longer than the peer stays."""
        waiter = asyncio.create_task(waiting)
        gone = asyncio.create_task(reader.read(1))
        try:
            await asyncio.wait([waiter, gone], return_when=asyncio.FIRST_COMPLETED)
            if gone.done() and not waiter.done():
                raise ConnectionResetError("the peer left")
            if gone.done() and gone.result():
                raise AssertionError("the peer sent more while a script was playing")
        finally:
            waiter.cancel()
            gone.cancel()
            await asyncio.gather(waiter, gone, return_exceptions=True)
