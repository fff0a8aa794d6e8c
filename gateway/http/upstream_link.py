"""What stands between an upstream's connection and aiohttp's documented client."""

import asyncio
import re
from collections.abc import Callable, Iterable
from typing import Any, cast

import aiohttp

from .flushing import reset
from .headers import max_head_bytes
from .read_buffer import BoundedReads, ReadBuffer
from .upstream_errors import BadHead, HeadTooLarge

_END_OF_HEAD = re.compile(rb"\n\r?\n")
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")  # except line ends, which the parser handles
_STATUS = re.compile(rb"HTTP/\d\.\d (\d{3})")
_LEAST_FINAL_STATUS, _FIRST_INTERIM_STATUS, _UPGRADED_STATUS = 200, 100, 101


class UpstreamLink:
    """The receiver of an upstream's bytes, and the transport of aiohttp's `protocol`.

    It passes each head on separately, so that data after it cannot invalidate it. It resets a connection that is closed before its answer,
    so that the upstream notices. When a write fails, it first reads what had arrived: that may be the answer.
    """

    def __init__(self, protocol: asyncio.Protocol, buffer: ReadBuffer, max_header_bytes: int, count: Callable[[int], None]) -> None:
        self.read_buffer = buffer
        self.fd = -1
        self.flat_out = False
        self.error: BaseException | None = None
        """What broke the connection before aiohttp closed it."""
        self._protocol = protocol
        self._transport: Any = None
        self._max_head_bytes = max_head_bytes(max_header_bytes)
        self._count = count
        self._head: bytearray | None = bytearray()  # what has come of a head; None once the final one is whole
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<UpstreamLink {'closed' if self._is_closed else 'open'}>"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._count(1)
        sock = transport.get_extra_info("socket")
        self.fd = sock.fileno() if sock is not None else -1
        self._protocol.connection_made(cast(asyncio.Transport, self))

    def read_bounded(self, transport: asyncio.Transport) -> None:
        """Take over a connection without TLS."""
        take_over(transport, BoundedReads(self, self.read_buffer))
        self.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        while data and self._head is not None and not self._is_closed:
            data = self._pass_head(data, self._head)
        if data and not self._is_closed:
            self._protocol.data_received(data)

    def _pass_head(self, data: bytes, head: bytearray) -> bytes:
        """Pass on what belongs to the head, and return the rest."""
        before = len(head)
        head += data
        end = _END_OF_HEAD.search(head, max(0, before - 2))
        if end is not None:
            del head[end.end() :]
        size = len(head) - before
        if len(head) > self._max_head_bytes:
            return self._fail(HeadTooLarge(self._max_head_bytes))
        if _CONTROL.search(data, 0, size):
            return self._fail(BadHead("its answer is not HTTP: its head has a control character"))
        if end is not None:
            status = int(found[1]) if (found := _STATUS.match(head)) else _LEAST_FINAL_STATUS
            if status < _FIRST_INTERIM_STATUS or status == _UPGRADED_STATUS:  # it was not asked for (RFC 9110 section 7.8)
                return self._fail(BadHead(f"its answer has the status {status:03}, which is not that of a final answer"))
            self._head = None if status >= _LEAST_FINAL_STATUS else bytearray()
        self._protocol.data_received(data[:size])
        return data[size:]

    def _fail(self, error: BadHead) -> bytes:
        self.abort()
        self._protocol.connection_lost(error)
        return b""

    @property
    def is_answering(self) -> bool:
        """Whether more of an answer may come."""
        return not self._is_closed

    def set_flat_out(self, flat_out: bool) -> None:
        """Set whether the newest read filled the offered memory."""
        self.flat_out = flat_out
        self.read_buffer.count(1 if flat_out else -1)

    def time_read(self, data: bytes, note_latency: object) -> None:
        """Process received data. It is not timed here, because another task writes it."""
        self.data_received(data)

    def eof_received(self) -> bool | None:
        return self._protocol.eof_received()

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def connection_lost(self, exc: BaseException | None) -> None:
        if not self._is_closed:
            self.error = exc
        self._is_closed = True
        if self.flat_out:
            self.set_flat_out(False)
        self._protocol.connection_lost(cast(Exception | None, exc))
        self._count(-1)

    # The interface of a transport that aiohttp uses

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        """Return whether it is closed. A failed write does not count before what had arrived is read."""
        return self._is_closed

    def write(self, data: bytes) -> None:
        """Send `data`, unless the connection has failed."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def writelines(self, data: Iterable[bytes]) -> None:
        """Send all of `data`."""
        self.write(b"".join(data))

    def close(self) -> None:
        """Close the connection. Reset it if the head has not come, or part of the request is unsent."""
        if self._head is not None or (not self._is_closed and self._transport.get_write_buffer_size()):
            self.abort()
        elif not self._is_closed:
            self._is_closed = True
            self._transport.close()

    def abort(self) -> None:
        """Reset the connection."""
        if not self._is_closed:
            self._is_closed = True
            reset(self._transport)


class DocumentedAnswer:
    """An upstream's answer, whose body is still to come."""

    def __init__(self, response: aiohttp.ClientResponse, link: UpstreamLink | None) -> None:
        self._response = response
        self.link = link
        """Its connection."""
        self.status = response.status
        self.reason = response.reason
        self.headers = response.headers
        self.content = response.content

    def __repr__(self) -> str:
        return f"<DocumentedAnswer {self.status}>"

    def close(self) -> None:
        """Reset the connection, unless the body has ended."""
        if self.link is not None and not self.content.is_eof():
            self.link.abort()
        self._response.close()


def take_over(transport: asyncio.Transport, protocol: asyncio.BaseProtocol) -> None:
    """Let `protocol` receive what a transport reads from now on."""
    transport.pause_reading()  # uvloop chooses how to read when it begins
    transport.set_protocol(protocol)
    transport.resume_reading()
