"""An upstream of event logs: it resumes and dies as told, and records its requests."""

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self

from tests.kit.certificates import Authority
from tests.kit.stack import free_ports
from tests.kit.upstream import LAST_CHUNK, Act, Asked, Disconnect, Script, ScriptedUpstream, chunk
from tests.shared.event_log import PLAIN, EventLog, Style

Resume = Literal["exact", "inclusive", "ignored", "404", "409"]
Death = Literal["reset", "close", "complete"]
"""RST; FIN without the last chunk; the last chunk, wherever the block is."""

DEATHS: tuple[Death, ...] = ("reset", "close", "complete")

_NOT_FOUND: Script = [b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 8\r\n\r\nno topic"]


class _Cut(Exception):
    """The connection has used up its allowance."""


@dataclass(eq=False)
class _Connection:
    """One event stream that is being sent."""

    topic: "Topic"
    writer: asyncio.StreamWriter
    allowance: int | None = None
    """Bytes that it may still send before it dies."""
    death: Death = "close"
    cut: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, wire: bytes) -> None:
        """Send `wire` in HTTP chunks. Raises _Cut when the allowance is used up."""
        for piece in self.topic.pieces(wire):
            self.writer.write(self._allowed(piece))
            await self.writer.drain()
            await asyncio.sleep(0)  # drain() alone lets no other task run while the kernel accepts all data
            if self.allowance == 0:
                raise _Cut

    def _allowed(self, piece: bytes) -> bytes:
        """Return the HTTP chunk, or the part of it that may still be sent."""
        if self.allowance is None:
            return chunk(piece)
        raw = chunk(piece[: self.allowance]) if self.death == "complete" else chunk(piece)[: self.allowance]
        self.allowance -= min(self.allowance, len(raw))
        return raw

    def die(self) -> None:
        if self.death == "complete":
            self.writer.write(LAST_CHUNK)
        elif self.death == "reset":
            sock = self.writer.get_extra_info("socket")
            if sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.writer.transport.abort()
        self.writer.close()


class Topic:
    """One event stream of the upstream: a path, its log, and how it answers."""

    def __init__(
        self,
        path: str,
        style: Style = PLAIN,
        *,
        resume: Resume = "exact",
        begin: Literal["now", "start"] = "now",
        retry: int | None = 20,
        rng: random.Random | None = None,
        pieces: Callable[[bytes], Sequence[bytes]] = lambda wire: [wire],
    ) -> None:
        self.path = path
        self.log = EventLog(style, rng)
        self.resume = resume
        self.begin = begin
        """Where a request without a last event ID begins."""
        self.retry = retry
        """Milliseconds, sent in a block of its own at the head of each stream."""
        self.pieces = pieces
        """Cuts data into HTTP chunks, each written by itself."""
        self.lifetime: Callable[[], tuple[Death, int] | None] = lambda: None
        """Returns for each new stream how and after how many bytes it will die, or None."""
        self.answer: bytes | None = None
        """A whole response to send instead of an event stream; an empty one: hang up."""
        self.speaking = asyncio.Event()
        """While it is not set, nothing is sent, not even a head."""
        self.speaking.set()
        self.requests: list[Asked] = []
        self._connections: set[_Connection] = set()
        self._change = asyncio.Condition()

    @property
    def open(self) -> int:
        """Return the number of event streams that are being sent."""
        return len(self._connections)

    @property
    def asked_after(self) -> list[str | None]:
        """Return the last event ID of each request."""
        return [asked.header("Last-Event-ID") for asked in self.requests]

    def publish(self, count: int = 1) -> list[bytes]:
        return self.log.publish(count)

    def kill(self, death: Death = "close", after_bytes: int = 0) -> None:
        """End the open streams, after some more bytes; the rest of an event is lost."""
        for connection in self._connections:
            connection.death, connection.allowance = death, after_bytes
            if not after_bytes:
                connection.cut.set()

    async def until(self, fact: Callable[[], bool], timeout: float = 30) -> None:
        """Return when `fact` about requests and open streams holds."""
        async with asyncio.timeout(timeout), self._change:
            await self._change.wait_for(fact)

    def script(self, asked: Asked) -> Script:
        self.requests.append(asked)
        if self.answer is not None:
            return [Act(self._note), self.answer or Disconnect()]
        if asked.method == "HEAD":
            return [Act(self._note), b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"]
        after = asked.header("Last-Event-ID")
        if after and self.resume in ("404", "409"):
            return [Act(self._note), b"HTTP/1.1 %s Gone Away\r\nContent-Length: 0\r\n\r\n" % self.resume.encode()]
        return [Act(lambda reader, writer: self._play(self._position(after), reader, writer))]

    def _position(self, after: str | None) -> int:
        if after and after.isdigit() and self.resume != "ignored":  # an ID that it never sent has no meaning for it
            return max(0, int(after) - (self.resume == "inclusive"))
        return len(self.log) if self.begin == "now" else 0

    async def _note(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with self._change:
            self._change.notify_all()
        await self.speaking.wait()

    async def _play(self, position: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._note(reader, writer)
        connection = _Connection(self, writer)
        if doom := self.lifetime():
            connection.death, connection.allowance = doom
        self._connections.add(connection)
        await self._note(reader, writer)
        left = asyncio.create_task(_until_left(reader))
        sending = asyncio.create_task(self._send(connection, position))
        cut = asyncio.create_task(connection.cut.wait())
        try:
            await asyncio.wait([left, sending, cut], return_when=asyncio.FIRST_COMPLETED)
            if sending.done() and not isinstance(sending.exception(), _Cut | ConnectionError):
                sending.result()
            if not left.done():
                connection.die()
        finally:
            for task in (left, sending, cut):
                task.cancel()
            await asyncio.gather(left, sending, cut, return_exceptions=True)
            self._connections.discard(connection)
            async with self._change:
                self._change.notify_all()
        raise ConnectionResetError("this stream is over")

    async def _send(self, connection: _Connection, position: int) -> None:
        connection.writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        if self.retry is not None:
            await connection.send(b"retry: %d\n\n" % self.retry)
        while True:
            await self.log.news(position)
            await self.speaking.wait()
            wire, position = self.log.wire(position), len(self.log)
            await connection.send(wire)


async def _until_left(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(ConnectionError):
        await reader.read(1)


class Upstream:
    """A server of topics that can be stopped and restarted on its port; with an `authority` it speaks HTTPS."""

    def __init__(self, authority: Authority | None = None) -> None:
        self.topics: dict[str, Topic] = {}
        self.strays: list[Asked] = []
        """Requests for unknown topics."""
        tls = None if authority is None else authority.issue("topics").server_context()
        self._server = ScriptedUpstream(self._script, port=free_ports(1)[0], tls=tls)
        self.trust: dict[str, object] = {} if authority is None else {"ca_file": str(authority.file)}
        """A route's TLS keys for this upstream."""
        self.running = False
        self.port = self._server.port
        self.url = f"{'http' if authority is None else 'https'}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    def add(self, topic: Topic) -> Topic:
        self.topics[topic.path] = topic
        return topic

    async def start(self) -> None:
        await self._server.__aenter__()
        self.running = True

    async def stop(self) -> None:
        """End all connections and refuse new ones until the next start."""
        self.running = False
        await self._server.__aexit__(None, None, None)

    @contextlib.asynccontextmanager
    async def away(self) -> AsyncIterator[None]:
        """Stop it while the context is open."""
        await self.stop()
        try:
            yield
        finally:
            await self.start()

    def _script(self, asked: Asked) -> Script:
        topic = self.topics.get(asked.target.partition("?")[0])
        if topic is None:
            self.strays.append(asked)
            return _NOT_FOUND
        return topic.script(asked)


def cut_at_random(rng: random.Random, longest: int = 400) -> Callable[[bytes], list[bytes]]:
    """Return a function that cuts bytes into pieces of random lengths, mostly short ones for short data."""

    def pieces(wire: bytes) -> list[bytes]:
        cuts, at = [], 0
        most = max(longest, len(wire) // 20)
        while at < len(wire):
            size = rng.randint(1, most)
            cuts.append(wire[at : at + size])
            at += size
        return cuts

    return pieces
