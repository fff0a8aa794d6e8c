"""The upstream side of the fast path: body bytes go from aiohttp's parser directly to a receiver, in the call that read them.

aiohttp's client does connecting, pooling, the request and the response's head. From then on there is no await: `UpstreamProtocol` lets the
parser undo the HTTP chunking of what one read brought, joins it, and hands it over. This leans on internals of aiohttp (the connector's
protocol factory; that the parser calls the payload's `feed_data`, `feed_eof` and the chunk marks; when it pools a connection), which is
why it stands alone in this module and is guarded by a test.
"""

import asyncio
import re
import socket
import struct
from collections.abc import Callable
from time import perf_counter
from typing import Any, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.streams import StreamReader

from .read_buffer import BoundedReads, ReadBuffer
from .received_body import ReceivedBody, take_buffer
from .receiver import CLOSED_EARLY, Receiver
from .upstream_errors import BadHead, HeadTooLarge

_KEEPALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)  # struct linger
_END_OF_HEAD = re.compile(rb"\n\r?\n")
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")  # except line ends, which the parser handles
_FREE, _HEAD, _BODY = range(3)  # expected next from the upstream: nothing, a head, a body


class UpstreamProtocol(ResponseHandler):
    """aiohttp's client protocol, which can bypass the stream reader.

    It knows what its upstream may send. Unsolicited data ends the connection before another request can take it for an answer
    (RFC 9112 section 9.2). A connection that is closed before its answer has ended is reset, so that the upstream notices.
    """

    # Slots, because the instance's dict is full: with more attributes it would not share its keys, and take four times the memory.
    __slots__ = (
        "_expected",
        "_head_bytes",
        "_head_end",
        "_max_head_bytes",
        "body",
        "body_ended",
        "fd",
        "flat_out",
        "lost",
        "read_buffer",
        "receiver",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, buffer: ReadBuffer, max_head_bytes: int) -> None:
        super().__init__(loop)
        self.read_buffer = buffer
        self._expected, self._head_bytes = _FREE, 0
        self._head_end = b""  # the last bytes of an incomplete head
        self._max_head_bytes = max_head_bytes
        self.fd = -1
        self.flat_out = False
        self.receiver: Receiver | None = None
        self.body: list[bytes] = []
        self.body_ended = False
        self.lost: BaseException | None = None
        """The error that broke the connection within an answer; None while it is open or after an orderly close."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        tcp = cast(asyncio.Transport, transport)
        if tcp.get_protocol() is self:  # TLS limits its reads itself
            tcp.set_protocol(BoundedReads(self, self.read_buffer))
        sock = transport.get_extra_info("socket")
        if sock is None:
            return
        self.fd = sock.fileno()
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEPALIVE:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)

    def set_response_params(self, **params: Any) -> None:
        """Expect the answer to the next request."""
        self._expected, self._head_bytes, self._head_end = _HEAD, 0, b""
        super().set_response_params(**params)

    @property
    def is_answering(self) -> bool:
        """Whether an answer is awaited or incomplete."""
        return self._expected == _HEAD or (self._expected == _BODY and self._payload is not None and not self._payload.is_eof())

    def data_received(self, data: bytes) -> None:
        receiver = self.receiver
        if receiver is None:
            self._receive_unattached(data)
            return
        self._parse_body(data)
        if self.body:
            self._head_bytes = 0
        else:
            self._bound_trailers(len(data))
        self._hand_over(receiver)
        if self.body_ended:
            self.receiver = None
            self._end_answer()
            receiver.upstream_ended()
        elif self.flat_out and self.receiver is not None:
            self.pause()
            self._loop.call_soon(self._next_turn)

    def _receive_unattached(self, data: bytes) -> None:
        if self._expected == _HEAD:
            data = self._receive_head(data)
        if self._parser is None or self._upgraded:
            super().data_received(data)  # data before the request is sent, or another protocol
        elif self._expected == _BODY and self._payload is not None:
            self._reschedule_timeout()
            self._parse_body(data)
            if self._payload is None or self._payload.is_eof():
                self._end_answer()
        elif data and self._expected == _FREE:
            self._drop()

    def _receive_head(self, data: bytes) -> bytes:
        """Parse heads separately, so that data after a head cannot invalidate it. Return the data after the last head."""
        while data and self._expected == _HEAD and self._exception is None and not self._upgraded:
            end = _END_OF_HEAD.search(self._head_end + data)
            size = end.end() - len(self._head_end) if end else len(data)
            self._head_bytes += size
            if self._head_bytes > self._max_head_bytes:
                self.set_exception(HeadTooLarge(self._max_head_bytes))
                return b""
            if _CONTROL.search(data, 0, size):  # the parser accepts some, but no server sends them
                self.set_exception(BadHead("its answer is not HTTP: its head has a control character"))
                return b""
            self._head_end = b"" if end else (self._head_end + data)[-2:]
            come = len(self._buffer)
            super().data_received(data[:size])
            data = data[size:]
            if len(self._buffer) > come and not 100 <= (head := self._buffer[-1][0][0]).code < 200:
                self._expected = _BODY
                # Some upstreams send a body with HEAD or 204. It may arrive after the next request is sent.
                if self._skip_payload or (head.code == 204 and (head.chunked or head.headers.get("Content-Length", "0") != "0")):
                    self._should_close = True
        return data

    def _parse_body(self, data: bytes) -> None:
        assert self._parser is not None
        try:
            messages, _, _ = self._parser.feed_data(data)
        except Exception as error:  # noqa: BLE001  # whatever the error, the data is invalid
            if self._payload is not None and not self._payload.is_eof() and self.receiver is None:
                self._payload.set_exception(aiohttp.ClientPayloadError(f"its body is not HTTP: {error}"))
            self._drop()  # connection_lost tells the receiver
        else:
            if messages:
                self._drop()  # an unsolicited answer

    def _bound_trailers(self, received: int) -> None:
        """Abort the connection if trailers and chunk extensions, which the parser keeps, grow too large."""
        self._head_bytes += received
        if self._head_bytes > self._max_head_bytes:
            self._drop()

    def _end_answer(self) -> None:
        """Expect nothing more, and close the connection if more has arrived."""
        self._expected = _FREE
        if self._parser is None:
            return
        try:
            begun = self._parser.feed_eof() is not None
        except Exception:  # noqa: BLE001  # it is not even the beginning of an answer
            begun = True
        if begun:
            self._drop()

    def _drop(self) -> None:
        self._should_close = True
        if self.transport is not None:
            self.transport.abort()

    def close(self) -> None:
        """Close the connection. Reset it if its answer is incomplete, or if part of the request is unsent."""
        transport = self.transport
        if transport is not None and (self.is_answering or transport.get_write_buffer_size()):
            sock = transport.get_extra_info("socket")
            if sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
            self.abort()
        else:
            super().close()

    def pause_reading(self) -> None:
        """Pause reading, unless the connection is closing: little data is left then, and nothing would resume."""
        if self.transport is not None and not self.transport.is_closing():
            super().pause_reading()

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        """Set why there is no answer. A request that was sent only in part may have one: connection_lost looks for it."""
        closing = self.transport is not None and self.transport.is_closing() and not self._connection_lost_called
        if closing and isinstance(exc, OSError) and self.is_answering:
            return
        super().set_exception(exc, *cause)

    def time_read(self, data: bytes, note_latency: Callable[[float], object] | None) -> None:
        """Process received data, and report the seconds until the receiver wrote the blocks that it completed."""
        receiver = self.receiver
        if note_latency is None or receiver is None:
            self.data_received(data)
            return
        before = receiver.bytes_out
        began = perf_counter()
        self.data_received(data)
        if receiver.bytes_out > before:
            note_latency(perf_counter() - began)

    def set_flat_out(self, flat_out: bool) -> None:
        """Set whether the newest read filled the offered memory."""
        self.flat_out = flat_out
        self.read_buffer.count(1 if flat_out else -1)

    def connection_lost(self, exc: BaseException | None) -> None:
        if exc is not None and self.is_answering:
            self.lost = exc
            if self._payload is not None and self._expected == _BODY and self.receiver is None:
                self._payload.set_exception(aiohttp.ClientPayloadError(f"connection lost: {exc}"))
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
            receiver.upstream_lost(f"connection lost: {exc}" if exc else CLOSED_EARLY)

    def attach(self, content: StreamReader, receiver: Receiver) -> None:
        """Send the rest of the response's body to `receiver`, starting with what has already arrived."""
        pending = take_buffer(content)
        content.__class__ = ReceivedBody
        self.receiver = receiver
        self.body_ended = False
        receiver.attached(self)
        if receiver.paused:
            self.pause()
        if pending:
            receiver.feed(pending)
        if self._reading_paused:  # the stream reader was full, and its parser holds the rest of the read
            self.resume_reading()
            if receiver.paused and self.receiver is receiver:  # otherwise the body has ended, and the connection may serve another request
                self.pause()

    def detach(self) -> None:
        """Detach the receiver. Unless the body has ended, reading stops, and the caller must close the response."""
        self.receiver = None
        self.body.clear()
        if self.body_ended:
            self.resume()  # for the next request on this connection
        else:
            self.pause()

    def pause(self) -> None:
        """Stop reading, so that TCP's flow control slows the upstream down."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def _hand_over(self, receiver: Receiver) -> None:
        body = self.body
        if body:
            chunk = b"".join(body)
            body.clear()
            receiver.feed(chunk)

    def _next_turn(self) -> None:
        if self.receiver is not None and not self.receiver.paused:
            self.resume()
