"""The upstream side of the fast path: body bytes go from aiohttp's parser straight to a receiver, in the call that read them.

aiohttp's client does connecting, pooling, the request and the response's head. From then on nobody awaits: `UpstreamProtocol` lets the
parser undo the HTTP chunking of what one read brought, joins it, and hands it over. This leans on internals of aiohttp (the connector's
protocol factory; that the parser calls the payload's `feed_data`, `feed_eof` and the chunk marks), which is why it stands alone in this
module, is guarded by a test, and why the caller has the documented way, reading `response.content`, for whatever `attach` refuses.
"""

import asyncio
import functools
import socket
from time import perf_counter
from typing import Any, Protocol, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.streams import StreamReader

from .headers import head_limits, max_head_bytes
from .metrics.latency import SAMPLE_EVERY, Latency
from .read_buffer import READ_BYTES, ReadBuffer
from .relay import Relay
from .upstream_client import HeadTooLarge, UpstreamAnswer
from .upstream_connector import UpstreamConnector

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


class _BoundedReads(asyncio.BufferedProtocol):
    """What the transport of an UpstreamProtocol talks to: bounds its reads, passes on all else.

    It stands between because an event loop lets only those choose the buffer that are no `asyncio.Protocol`.
    """

    __slots__ = ("_buffer", "_offered", "_owner")

    def __init__(self, owner: "UpstreamProtocol", buffer: ReadBuffer) -> None:
        self._owner = owner
        self._buffer = buffer
        self._offered = 0

    def get_buffer(self, sizehint: int) -> memoryview:
        buffer = self._buffer
        self._offered = buffer.share
        return buffer.memory if buffer.share == READ_BYTES else buffer.memory[: buffer.share]

    def buffer_updated(self, nbytes: int) -> None:
        owner = self._owner
        if owner.flat_out is not (nbytes == self._offered):
            owner.set_flat_out(not owner.flat_out)
        buffer = self._buffer
        buffer.until_sample -= 1
        if buffer.until_sample:
            owner.data_received(buffer.memory[:nbytes].tobytes())
        else:
            buffer.until_sample = SAMPLE_EVERY
            owner.time_read(buffer.memory[:nbytes].tobytes(), buffer.latency)

    def eof_received(self) -> None:
        self._owner.eof_received()

    def pause_writing(self) -> None:
        self._owner.pause_writing()

    def resume_writing(self) -> None:
        self._owner.resume_writing()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._owner.connection_lost(exc)


class UpstreamProtocol(ResponseHandler):
    """aiohttp's client protocol, which can bypass the stream reader."""

    # The instance's dict is full: with more attributes it would no longer share its keys, and take four times the memory.
    __slots__ = ("_head_bytes", "_max_head_bytes", "_read_buffer", "body", "body_ended", "flat_out", "lost", "receiver")

    def __init__(self, loop: asyncio.AbstractEventLoop, buffer: ReadBuffer, max_head_bytes: int) -> None:
        super().__init__(loop)
        self._head_bytes = 0
        self._max_head_bytes = max_head_bytes
        self._read_buffer = buffer
        self.flat_out = False
        self.receiver: Receiver | None = None
        self.body: list[bytes] = []
        self.body_ended = False
        self.lost: BaseException | None = None
        """What broke the connection, None while it is open and when it was closed in order."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        cast(asyncio.Transport, transport).set_protocol(_BoundedReads(self, self._read_buffer))
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEPALIVE:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)

    def data_received(self, data: bytes) -> None:
        receiver = self.receiver
        if receiver is None:
            super().data_received(data)
            self._bound_head(len(data))
            return
        assert self._parser is not None
        try:
            messages, _, _ = self._parser.feed_data(data)
        except Exception:  # noqa: BLE001  # whatever it is, the bytes make no sense; connection_lost says so to the receiver
            self._should_close = True
            if self.transport is not None:
                self.transport.abort()
        else:
            if messages:
                self._should_close = True  # an answer that nobody asked for
        if self.body:
            self._head_bytes = 0
        else:
            self._bound_trailers(len(data))
        self._hand_over(receiver)
        if self.body_ended:
            self.receiver = None
            receiver.upstream_ended()
        elif self.flat_out and self.receiver is not None:
            self.pause()
            self._loop.call_soon(self._next_turn)

    def _bound_head(self, received: int) -> None:
        """Close the connection when a head that is awaited grows too large."""
        if self._waiter is None or self._waiter.done():
            self._head_bytes = 0
            return
        self._head_bytes += received
        if self._head_bytes > self._max_head_bytes:
            self.set_exception(HeadTooLarge(self._max_head_bytes))

    def _bound_trailers(self, received: int) -> None:
        """Abort the connection when trailers and chunk extensions, which the parser keeps, grow too large."""
        self._head_bytes += received
        if self._head_bytes > self._max_head_bytes and self.transport is not None:
            self.transport.abort()

    def time_read(self, data: bytes, latency: Latency | None) -> None:
        """The same as `data_received`, and tells `latency` how long it took until what the read completed was written."""
        receiver = self.receiver
        if latency is None or not isinstance(receiver, Relay):
            self.data_received(data)
            return
        before = receiver.bytes_out
        began = perf_counter()
        self.data_received(data)
        if receiver.bytes_out > before:
            latency.note(perf_counter() - began)

    def set_flat_out(self, flat_out: bool) -> None:
        """Notes whether the newest read filled what it was offered."""
        self.flat_out = flat_out
        self._read_buffer.count(1 if flat_out else -1)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost = exc
        super().connection_lost(exc)
        if self.flat_out:
            self.set_flat_out(False)
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
        if receiver.paused:
            self.pause()
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


def attach(response: UpstreamAnswer, receiver: Receiver) -> bool:
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


def open_session(
    *, keepalive_seconds: float, max_header_bytes: int, unix_path: str = "", latency: Latency | None = None
) -> aiohttp.ClientSession:
    """Gives the client session of the gateway: no cookies, no decoding, no limit of connections, no time limits of its own.

    With `unix_path` it connects to that socket, whatever a URL says. `latency` gets samples.
    """
    loop = asyncio.get_running_loop()
    pooling: dict[str, Any] = {"keepalive_timeout": keepalive_seconds} if keepalive_seconds else {"force_close": True}
    connector = aiohttp.UnixConnector(unix_path, limit=0, **pooling) if unix_path else UpstreamConnector(limit=0, **pooling)
    connector._factory = functools.partial(UpstreamProtocol, loop, ReadBuffer(latency), max_head_bytes(max_header_bytes))  # type: ignore[assignment]
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        timeout=aiohttp.ClientTimeout(total=None),
        **head_limits(max_header_bytes),
    )
