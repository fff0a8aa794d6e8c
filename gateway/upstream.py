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

FAIR_READ_BYTES = 64 * 1024
"""After a read of this size a connection gives up its turn, so that a flat-out upstream starves no other (uvloop would read 32 times)."""

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


class UpstreamProtocol(ResponseHandler):
    """aiohttp's client protocol, which can bypass the stream reader."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.receiver: Receiver | None = None
        self.body: list[bytes] = []
        self.body_ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEPALIVE:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        receiver = self.receiver
        if receiver is None:
            return
        self._hand_over(receiver)
        if self.body_ended:
            self.receiver = None
            receiver.upstream_ended()
        elif len(data) >= FAIR_READ_BYTES and self.receiver is not None:
            self.pause()
            self._loop.call_soon(self._next_turn)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        receiver, self.receiver = self.receiver, None
        if receiver is None:
            return
        self._hand_over(receiver)
        if self.body_ended and exc is None:
            receiver.upstream_ended()
        else:
            receiver.upstream_lost(f"connection lost: {exc}" if exc else "connection closed before the end of the response")

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
            if receiver.paused:
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
        if len(body) == 1:
            receiver.feed(body.pop())
        while body:
            size = count = 0
            for chunk in body:
                size += len(chunk)
                count += 1
                if size >= FAIR_READ_BYTES:
                    break
            joined = b"".join(body[:count])
            del body[:count]  # a large read is not in memory three times over
            receiver.feed(joined)

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
    protocol = response.connection.protocol if response.connection is not None else None
    lost = content.exception()
    if content.is_eof() or lost is not None or protocol is None or protocol.transport is None:  # it is over already
        received = _take_buffer(content)
        if received:
            receiver.feed(received)
        if content.is_eof():
            receiver.upstream_ended()
        else:
            receiver.upstream_lost(str(lost) if lost else "connection closed before the end of the response")
        return True
    if not isinstance(protocol, UpstreamProtocol) or type(content) is not StreamReader:
        return False
    protocol.attach(content, receiver)
    return True


def open_session(*, keepalive_seconds: float, max_header_bytes: int) -> aiohttp.ClientSession:
    """Gives the client session of the gateway: no cookies, no decoding, no limit of connections, no time limits of its own."""
    loop = asyncio.get_running_loop()
    pooling: dict[str, Any] = {"keepalive_timeout": keepalive_seconds} if keepalive_seconds else {"force_close": True}
    connector = aiohttp.TCPConnector(limit=0, **pooling)
    connector._factory = functools.partial(UpstreamProtocol, loop)  # type: ignore[assignment]
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        timeout=aiohttp.ClientTimeout(total=None),
        max_line_size=max_header_bytes,
        max_field_size=max_header_bytes,
    )
