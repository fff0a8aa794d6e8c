"""The upstream side of the fast path: body bytes go from aiohttp's parser straight to a receiver, in the call that read them.

aiohttp's client does connecting, pooling, the request and the response's head. From then on nobody awaits: `UpstreamProtocol` lets the
parser undo the HTTP chunking of what one read brought, joins it, and hands it over. This leans on internals of aiohttp (the connector's
protocol factory; that the parser calls the payload's `feed_data`, `feed_eof` and the chunk marks), which is why it stands alone in this
module, is guarded by a test, and why the caller has the documented way, reading `response.content`, for whatever `attach` refuses.
"""

import asyncio
import functools
import socket
from typing import Any, Protocol

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.streams import StreamReader

READ_BYTES = 64 * 1024
"""One read brings at most this much. uvloop by itself reads 256 kB, up to 32 times in a row."""

_TURN_BYTES = 512 * 1024  # what all flat-out connections together may bring in one turn of the loop: some ten milliseconds of work
_LEAST_READ_BYTES = 4 * 1024

_CLOSED_EARLY = "connection closed before the end of the response"
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))


class Receiver(Protocol):
    """Takes what an upstream sends after its head."""

    paused: bool
    upstream: "UpstreamProtocol | None"
    """Whom to pause and resume; set while the response is attached."""

    def feed(self, chunk: bytes) -> None:
        """Takes body bytes, HTTP chunking undone."""

    def upstream_ended(self) -> None:
        """The body is complete."""

    def upstream_lost(self, reason: str) -> None:
        """The connection ended before the body did."""


class _ReceivedBody(StreamReader):
    """A response's payload once it is attached: keeps nothing, passes all to its protocol."""

    __slots__ = ()
    _protocol: "UpstreamProtocol"

    def feed_data(self, data: bytes, size: int = 0) -> bool:
        self._protocol.body.append(data)
        return False

    def begin_http_chunk_receiving(self) -> None:
        """HTTP chunks mean nothing to an event stream."""

    def end_http_chunk_receiving(self) -> None:
        """HTTP chunks mean nothing to an event stream."""

    def feed_eof(self) -> None:
        self._protocol.body_ended = True
        super().feed_eof()


class ReadBuffer:
    """Where all connections of a session read into, one after the other.

    The more connections are flat out, filling whatever they are offered, the less each may read in a turn of the event loop. So the
    loop stays quick for the others, and for those who are just connecting.
    """

    def __init__(self) -> None:
        self.memory = memoryview(bytearray(READ_BYTES))
        self.flat_out = 0
        """How many connections filled the buffer with their newest read."""

    def offer(self) -> memoryview:
        """Gives the part of the buffer that one read may fill."""
        if self.flat_out * READ_BYTES <= _TURN_BYTES:
            return self.memory
        return self.memory[: max(_LEAST_READ_BYTES, _TURN_BYTES // self.flat_out)]


class UpstreamProtocol(ResponseHandler, asyncio.BufferedProtocol):
    """aiohttp's client protocol, which reads into a buffer that all connections share and can bypass the stream reader."""

    # The instance's dict is full: with more attributes it would no longer share its keys, and take four times the memory.
    __slots__ = ("_flat_out", "_offered", "_read_buffer", "body", "body_ended", "lost", "receiver")

    def __init__(self, loop: asyncio.AbstractEventLoop, buffer: ReadBuffer) -> None:
        super().__init__(loop)
        self._read_buffer = buffer
        self._offered = READ_BYTES
        self._flat_out = False
        self.receiver: Receiver | None = None
        self.body: list[bytes] = []
        self.body_ended = False
        self.lost: BaseException | None = None
        """What broke the connection, None while it is open and when it was closed in order."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEPALIVE:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)

    def get_buffer(self, sizehint: int) -> memoryview:
        offer = self._read_buffer.offer()
        self._offered = len(offer)
        return offer

    def buffer_updated(self, nbytes: int) -> None:
        if self._flat_out is not (nbytes == self._offered):
            self._set_flat_out(not self._flat_out)
        self.data_received(bytes(self._read_buffer.memory[:nbytes]))

    def _set_flat_out(self, flat_out: bool) -> None:
        self._flat_out = flat_out
        self._read_buffer.flat_out += 1 if flat_out else -1

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        receiver = self.receiver
        if receiver is None:
            return
        self._hand_over(receiver)
        if self.body_ended:
            self.receiver = None
            receiver.upstream_ended()
        elif self._flat_out and self.receiver is not None:
            self.pause()
            self._loop.call_soon(self._next_turn)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost = exc
        super().connection_lost(exc)
        if self._flat_out:
            self._set_flat_out(False)
        receiver, self.receiver = self.receiver, None
        if receiver is None:
            return
        self._hand_over(receiver)
        if self.body_ended and exc is None:
            receiver.upstream_ended()
        else:
            receiver.upstream_lost(f"connection lost: {exc}" if exc else _CLOSED_EARLY)

    def attach(self, content: StreamReader, receiver: Receiver) -> None:
        """Sends the rest of the response's body to `receiver`, starting with what has already come."""
        pending = _take_buffer(content)
        content.__class__ = _ReceivedBody
        self.receiver = receiver
        self.body_ended = False
        receiver.upstream = self
        if pending:
            receiver.feed(pending)
        if self._reading_paused:  # the stream reader was full; its parser holds the rest of what was read
            self.resume_reading()
            if receiver.paused and self.receiver is receiver:  # else the body has ended and the connection may serve another request
                self.pause()

    def detach(self) -> None:
        """Forgets the receiver. Unless the body has ended nothing more is read, and the response has to be closed."""
        self.receiver = None
        self.body.clear()
        if self.body_ended:
            self.resume()  # for the next request on this connection
        else:
            self.pause()

    def pause(self) -> None:
        """Lets the kernel's window slow the upstream down."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()

    def resume(self) -> None:
        """Reads on."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def _hand_over(self, receiver: Receiver) -> None:
        body = self.body
        if body:
            chunk = body[0] if len(body) == 1 else b"".join(body)
            body.clear()
            receiver.feed(chunk)

    def _next_turn(self) -> None:
        if self.receiver is not None and not self.receiver.paused:
            self.resume()


def _take_buffer(content: StreamReader) -> bytes:
    """Gives what the stream reader holds. `read_nowait` would run the parser again for each HTTP chunk, which may add more."""
    received = b"".join(content._buffer)
    content._buffer.clear()
    content._size = 0
    return received


def attach(response: aiohttp.ClientResponse, receiver: Receiver) -> bool:
    """Sends the body of `response` to `receiver`, now and in the calls that read it.

    False when that cannot be, because the response is not aiohttp's usual arrangement: then the caller has to read it.
    """
    content = response.content
    protocol = response._protocol  # `response.connection` is gone when the body has ended
    if not isinstance(protocol, UpstreamProtocol):
        return False
    lost = content.exception() or protocol.lost
    if content.is_eof() or lost is not None or protocol.transport is None:  # it is over already
        received = _take_buffer(content)
        if received:
            receiver.feed(received)
        if content.is_eof() and lost is None:
            receiver.upstream_ended()
        else:
            receiver.upstream_lost(f"connection lost: {lost}" if lost else _CLOSED_EARLY)
        return True
    if type(content) is not StreamReader:
        return False
    protocol.attach(content, receiver)
    return True


def open_session(*, keepalive_seconds: float, max_header_bytes: int) -> aiohttp.ClientSession:
    """Gives the client session of the gateway: no cookies, no decoding, no limit of connections, no time limits of its own."""
    loop = asyncio.get_running_loop()
    pooling: dict[str, Any] = {"keepalive_timeout": keepalive_seconds} if keepalive_seconds else {"force_close": True}
    connector = aiohttp.TCPConnector(limit=0, **pooling)
    connector._factory = functools.partial(UpstreamProtocol, loop, ReadBuffer())  # type: ignore[assignment]
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        timeout=aiohttp.ClientTimeout(total=None),
        max_line_size=max_header_bytes,
        max_field_size=max_header_bytes,
    )
