"""A raw HTTP/1.1 client: it reads only when told to, checks the framing, and knows how its connection ended."""

import asyncio
import contextlib
import enum
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tests.kit.waiting import GUARD_SECONDS

AT_ONCE_SECONDS = 10.0
"""The limit for anything that must not wait for a timer. The shortest default timer of a route is 15 s, and a smaller limit could not
distinguish a gateway that notices nothing from a busy machine."""

Fields = Iterable[tuple[str, str]]


class End(enum.Enum):
    """How an answer ended."""

    COMPLETE = "its framing says that it is complete"
    CUT_SHORT = "FIN before its framing said that it is complete"
    CLOSED = "FIN, and nothing but the end of the connection delimits it"
    RESET = "RST"


class FramingError(AssertionError):
    """The proxy sent something other than HTTP/1.1."""


@dataclass(frozen=True)
class Head:
    """Status line and header fields of a response."""

    version: str
    status: int
    fields: list[tuple[str, str]]

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def value(self, name: str) -> str | None:
        """Return the field's values joined by a comma, None when it is absent."""
        return ", ".join(self.values(name)) or None


class Downstream:
    """One connection to the proxy under test.

    With `receive_buffer` (bytes) the kernel buffers little for a reader that stalls. `source` is the client's address.
    """

    def __init__(self, port: int, *, receive_buffer: int | None = None, source: str = "127.0.0.1") -> None:
        self._port = port
        self._source = source
        self.socket = socket.socket()
        self.socket.setblocking(False)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.buffer = bytearray()
        """Received and not yet interpreted."""
        self.end: End | None = None
        """CUT_SHORT or RESET once the connection has ended."""

    async def __aenter__(self) -> Self:
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._source != "127.0.0.1":
            self.socket.bind((self._source, 0))
        try:
            async with asyncio.timeout(GUARD_SECONDS):
                await asyncio.get_running_loop().sock_connect(self.socket, ("127.0.0.1", self._port))
        except OSError:
            self.socket.close()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.socket.close()

    async def send(self, sent: bytes) -> None:
        """Send all of `sent`, for as long as the proxy takes to read it."""
        await asyncio.get_running_loop().sock_sendall(self.socket, sent)

    async def ask(self, target: str, method: str = "GET", headers: Fields = (), body: bytes = b"", version: str = "1.1") -> None:
        """Send one request; a body gets a Content-Length."""
        lines = [f"{method} {target} HTTP/{version}", f"Host: 127.0.0.1:{self._port}"]
        lines += [f"{name}: {value}" for name, value in headers]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        await self.send("\r\n".join([*lines, "", ""]).encode() + body)

    async def answer(self, method: str = "GET") -> "Answer":
        """Read the next response's head, recording interim ones; `method` is that of the request."""
        interim: list[Head] = []
        while True:
            head = await self._head()
            if head.status >= 200 or head.status == 101:
                return Answer(self, method, head, interim)
            interim.append(head)

    def widen(self) -> None:
        """Enlarge a small `receive_buffer`, so that reading the backlog is quick."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)

    def half_close(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """End the connection with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    async def fill(self) -> bool:
        """Read once. Return False when the connection has ended; `end` then says how."""
        if self.end:
            return False
        try:
            received = await asyncio.get_running_loop().sock_recv(self.socket, 2**18)
        except ConnectionResetError:
            self.end = End.RESET
            return False
        if not received:
            self.end = End.CUT_SHORT
            return False
        self.buffer += received
        return True

    async def ended(self, timeout: float = AT_ONCE_SECONDS) -> End:
        """Read to the end of the connection, whatever comes."""
        async with asyncio.timeout(timeout):
            while await self.fill():
                pass
        assert self.end
        return self.end

    async def _head(self) -> Head:
        try:
            async with asyncio.timeout(GUARD_SECONDS):
                while b"\r\n\r\n" not in self.buffer:
                    if not await self.fill():
                        raise FramingError(f"connection ended ({self.end}) in a head: {bytes(self.buffer)!r}")
        except TimeoutError as error:
            raise AssertionError(f"no head after {GUARD_SECONDS} s, just {bytes(self.buffer)!r}") from error
        raw, _, rest = bytes(self.buffer).partition(b"\r\n\r\n")
        self.buffer[:] = rest
        first, *lines = raw.decode("latin-1").split("\r\n")
        version, status, *_ = first.split(" ", 2)
        if version not in ("HTTP/1.1", "HTTP/1.0") or len(status) != 3:
            raise FramingError(f"status line is {first!r}")
        return Head(version, int(status), [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)])


@dataclass
class Answer:
    """One response; its body grows as it is read."""

    downstream: Downstream
    method: str
    head: Head
    interim: list[Head] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    trailers: list[str] = field(default_factory=list)
    end: End | None = None

    def __post_init__(self) -> None:
        coding, length = self.head.value("Transfer-Encoding"), self.head.value("Content-Length")
        self._left_in_chunk = 0
        self._in_trailers = False
        self._left: int | None = None  # bytes to come, where the head states their number
        self._chunked = False
        if self.method == "HEAD" or self.head.status in (204, 304) or self.head.status < 200:
            self._left = 0
        elif coding:
            if coding.lower() != "chunked" or length is not None:
                raise FramingError(f"Transfer-Encoding is {coding!r}, Content-Length is {length!r}")
            self._chunked = True
        elif length is not None:
            self._left = int(length)
        self._interpret()

    async def receive(self, at_least: int, timeout: float = GUARD_SECONDS) -> bytes:
        """Read until the body has `at_least` bytes (or has ended), and return it."""
        await self._read_while(lambda: len(self.body) < at_least, timeout)
        return bytes(self.body)

    async def receive_until(self, enough: Callable[[bytes], bool], timeout: float = GUARD_SECONDS) -> bytes:
        """Read until the body is `enough` (or has ended), and return it."""
        await self._read_while(lambda: not enough(bytes(self.body)), timeout)
        return bytes(self.body)

    async def to_end(self, timeout: float = GUARD_SECONDS) -> bytes:
        """Read to the end of the body and return it; `end` then says how it ended."""
        await self._read_while(lambda: True, timeout)
        return bytes(self.body)

    async def pieces(self, timeout: float = GUARD_SECONDS) -> AsyncIterator[bytes]:
        """Yield the body as it comes, without keeping it."""
        while True:
            if self.body:
                piece = bytes(self.body)
                self.body.clear()
                yield piece
            if self.end:
                return
            await self._read_while(lambda: not self.body, timeout)

    async def _read_while(self, wanting: Callable[[], bool], timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                while not self.end and wanting():
                    if await self.downstream.fill():
                        self._interpret()
                    else:
                        self.end = self.downstream.end
                        if self.end is End.CUT_SHORT and not self._chunked and self._left is None:
                            self.end = End.CLOSED
        except TimeoutError as error:
            raise AssertionError(f"after {timeout} s the body has {len(self.body)} bytes: {bytes(self.body[-200:])!r}") from error

    def _interpret(self) -> None:
        buffer = self.downstream.buffer
        if self._chunked:
            while not self.end and self._interpret_chunk(buffer):
                pass
            return
        if self._left is None:
            self._take(len(buffer))
        else:
            self._left -= self._take(self._left)
            if not self._left:
                self.end = End.COMPLETE

    def _interpret_chunk(self, buffer: bytearray) -> bool:
        """Take the next item of the chunked coding. Return False when it is incomplete."""
        if self._left_in_chunk > 2:
            taken = self._take(self._left_in_chunk - 2)
            self._left_in_chunk -= taken
            return taken > 0
        at = buffer.find(b"\r\n")
        if at < 0:
            return False
        line = bytes(buffer[:at])
        del buffer[: at + 2]
        if self._left_in_chunk:
            self._left_in_chunk = 0
            if line:
                raise FramingError(f"a chunk is followed by {line!r}")
        elif self._in_trailers:
            if line:
                self.trailers.append(line.decode("latin-1"))
            else:
                self.end = End.COMPLETE
        elif size := self._chunk_size(line):
            self._left_in_chunk = size + 2
        else:
            self._in_trailers = True
        return True

    def _take(self, at_most: int) -> int:
        buffer = self.downstream.buffer
        taken = min(at_most, len(buffer))
        self.body += buffer[:taken]
        del buffer[:taken]
        return taken

    @staticmethod
    def _chunk_size(line: bytes) -> int:
        if not line or line.strip(b"0123456789abcdefABCDEF"):
            raise FramingError(f"chunk size is {line!r}")
        return int(line, 16)


@contextlib.asynccontextmanager
async def connected(port: int, count: int) -> AsyncIterator[list[Downstream]]:
    """Open `count` connections, and close them at the end."""
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Downstream(port)) for _ in range(count)]
