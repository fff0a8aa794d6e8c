"""How the end of an answer leaves for a client that may not read it."""

import asyncio
import socket
import struct

from aiohttp import web

LITTLE_BYTES = 16 * 1024
"""What may be unsent of an answer that counts as sent."""

_LOOK_SECONDS = 10.0
_LEAST_BYTES = 4 * 1024  # that a client has to take in this time: single bytes are no progress
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)  # struct linger


class Unsent:
    """Aborts a connection whose client takes less than 4 KiB in 10 s of what is written, until `stop` or until it is closed."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._size = transport.get_write_buffer_size()
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(_LOOK_SECONDS, self._look) if self._size else None

    def __repr__(self) -> str:
        return f"<Unsent {self._size}>"

    def _look(self) -> None:
        size = self._transport.get_write_buffer_size()
        if self._size - size < _LEAST_BYTES:
            self._transport.abort()
            return
        self._size = size
        self._timer = self._loop.call_later(_LOOK_SECONDS, self._look)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()


def end_unfinished(request: web.BaseRequest, response: web.StreamResponse, *, delimited: bool) -> None:
    """End the connection of a response so that it does not look complete.

    When it is `delimited`, by chunked coding or a length, the missing end tells, so what was written may still leave, for ten seconds at
    most. A response that the end of the connection delimits (HTTP/1.0) needs a reset (RFC 9112 section 8).
    """
    response.force_close()
    transport = request.transport
    if transport is None:
        return
    if delimited:
        transport.close()
        asyncio.get_running_loop().call_later(_LOOK_SECONDS, transport.abort)
    else:
        reset(transport)


def reset(transport: asyncio.Transport) -> None:
    """Abort a connection so that the peer gets an RST: after a FIN it could go on writing for a while."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
    transport.abort()
