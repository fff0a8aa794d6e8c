"""What aiohttp's server does not do by itself for a response that is streamed past it."""

import asyncio
import contextlib
import io
import socket
import struct
import sys
from typing import Any, Protocol

from aiohttp import web
from aiohttp.http_writer import StreamWriter
from aiohttp.web_protocol import RequestHandler

_FLUSH_SECONDS = 10.0
_MOST_UNSENT_BYTES = 128 * 1024
_TCP_NOTSENT_LOWAT = 25  # of Linux; Python names it since 3.12


class Writing(Protocol):
    """Who writes to a transport past aiohttp."""

    def pause(self) -> None:
        """The transport's buffer is over its high-water mark."""

    def resume(self) -> None:
        """It has drained."""

    def lost(self) -> None:
        """The connection is gone."""


class DownstreamProtocol(RequestHandler):
    """aiohttp's server protocol, which tells whoever writes past aiohttp to pause, and for which a client that half-closes has left.

    An orderly leave and a half-close look the same, and waiting for the difference would keep the upstream request of a client that does
    not read for ever.
    """

    __slots__ = ("writing",)

    def __init__(self, manager: web.Server, **options: Any) -> None:
        super().__init__(manager, **options)
        self.writing: Writing | None = None

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.writing is not None:
            self.writing.pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.writing is not None:
            self.writing.resume()

    def connection_lost(self, exc: BaseException | None) -> None:
        writing, self.writing = self.writing, None
        if writing is not None:
            writing.lost()  # now: before aiohttp's cancellation gets to the handler, uvloop would raise on a write
        super().connection_lost(exc)

    def eof_received(self) -> None:
        if self.transport is not None:
            self.transport.abort()


class DownstreamServer(web.Server):
    """aiohttp's low-level server with that protocol."""

    def __call__(self) -> RequestHandler:
        return DownstreamProtocol(self, loop=self._loop, **self._kwargs)


class ResponseHead(web.StreamResponse):
    """A response whose head leaves when the gateway says so: at once, or in one write with a body that is already here."""

    _send_headers_immediately = False


class WholeBody(io.BytesIO):
    """Gathers a body that is already here, where a transport would send it."""

    def is_closing(self) -> bool:
        """False: it always takes more."""
        return False


def send_head(writer: StreamWriter) -> None:
    """Sends the head of a response at once; nothing when the client has just left, which whoever writes next will hear of."""
    with contextlib.suppress(ConnectionResetError):
        writer.send_headers()


def occupy(request: web.BaseRequest) -> DownstreamProtocol:
    """Gives the connection to whoever writes to it past aiohttp for a long time.

    aiohttp keeps a keep-alive timer also while a request is served, which wakes up and does nothing: half a KiB a connection. The kernel
    would take megabytes for a client that does not read; now it says that the socket is full when 128 KiB are not sent yet.
    """
    protocol = request.protocol
    assert isinstance(protocol, DownstreamProtocol)
    if protocol._keepalive_handle is not None:
        protocol._keepalive_handle.cancel()
        protocol._keepalive_handle = None
    sock = request.transport.get_extra_info("socket") if request.transport is not None else None
    if sys.platform == "linux" and sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, _MOST_UNSENT_BYTES)
    return protocol


def release(request: web.BaseRequest) -> None:
    """Ends what `occupy` began."""
    protocol = request.protocol
    assert isinstance(protocol, DownstreamProtocol)
    protocol.writing = None


def end_unfinished(request: web.BaseRequest, response: web.StreamResponse, *, delimited: bool) -> None:
    """Ends the connection of a response so that it does not look complete.

    When it is `delimited`, by chunked coding or a length, the missing end tells, so what was written may still leave, for ten seconds at
    most. A response that the end of the connection delimits (HTTP/1.0) needs a reset (RFC 9112 section 8).
    """
    response.force_close()
    transport = request.transport
    if transport is None:
        return
    if delimited:
        transport.close()
        asyncio.get_running_loop().call_later(_FLUSH_SECONDS, transport.abort)
    else:
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()


def comes_from_peer(request: web.BaseRequest) -> bool:
    """Tells whether another worker of this gateway has handed the request over, on a Unix socket: then there is no address."""
    return request.remote == ""


def takes_retry_block(request: web.BaseRequest) -> bool:
    """Tells whether the client may get a block that has only `retry`: EventSource uses it, SDKs for LLMs fail on blocks without data."""
    accept = request.headers.get("Accept", "*/*")
    return "text/event-stream" in accept or (request.method == "GET" and "*/*" in accept)
