"""Answers that are written past aiohttp."""

import asyncio
import contextlib
import functools
import re
import time
from email.utils import formatdate

from aiohttp import HttpVersion, HttpVersion11, web
from multidict import CIMultiDict, istr

from .incoming import Incoming

_CONNECTION, _CONTENT_LENGTH, _DATE, _SERVER, _TRANSFER_ENCODING = map(
    istr, ("Connection", "Content-Length", "Date", "Server", "Transfer-Encoding")
)
_FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")  # in a header field (RFC 9110 section 5.5)
_NO_CONTENT, _NOT_MODIFIED = 204, 304


class AnswerHead(web.StreamResponse):
    """An answer whose head the gateway sends: at once, or in one write with a complete body.

    It has the media type of the upstream's answer, or none. Its sink is the transport.
    """

    chunked_here = False
    """Whether what writes the body makes the HTTP chunks; known once the answer is prepared."""
    _head = b""  # until it is sent
    _transport: asyncio.Transport | None = None  # once the answer is prepared
    _stays_open: bool | None = None
    _has_ended = False

    @property
    def prepared(self) -> bool:
        """Whether the head is made."""
        return self._transport is not None

    @property
    def keep_alive(self) -> bool | None:
        """Whether the connection stays open; None until the answer is prepared."""
        return self._stays_open

    def force_close(self) -> None:
        """Close the connection after this answer."""
        self._stays_open = False

    async def prepare(self, request: web.BaseRequest) -> None:
        """Make the head. Raises ConnectionResetError if the client has disconnected."""
        if self._transport is not None:
            return
        if request.transport is None:
            raise ConnectionResetError("the client has disconnected")
        if isinstance(request, Incoming):
            request.complete(self)
            request.has_answer = True
        self._transport = request.transport
        fields, version = self.headers, request.version
        if self._stays_open is None:
            self._stays_open = request.keep_alive
        if request.method == "HEAD" or self.status in (_NO_CONTENT, _NOT_MODIFIED):
            fields.popall(_TRANSFER_ENCODING, None)
            if self.status == _NO_CONTENT:
                fields.popall(_CONTENT_LENGTH, None)
        elif _CONTENT_LENGTH not in fields:
            self.chunked_here = version >= HttpVersion11
            if self.chunked_here:
                fields[_TRANSFER_ENCODING] = "chunked"
            else:
                self._stays_open = False  # nothing else delimits the body
        fields.setdefault(_SERVER, "gateway")
        if self._stays_open != (version >= HttpVersion11):
            fields.setdefault(_CONNECTION, "keep-alive" if self._stays_open else "close")
        self._head = make_head(version, self.status, self.reason, fields)

    def open_sink(self) -> asyncio.Transport:
        """Send the head, and return what takes the body."""
        assert self._transport is not None
        with contextlib.suppress(ConnectionResetError):  # the next write reports it
            self.send()
        return self._transport

    def send(self, data: bytes = b"") -> None:
        """Write the head, if it was not sent before, and `data`. Raises ConnectionResetError if the connection is closing."""
        assert self._transport is not None
        if self._transport.is_closing():
            raise ConnectionResetError("the connection is closing")
        head, self._head = self._head, b""
        if head or data:
            self._transport.write(head + data)

    async def write_eof(self, data: bytes = b"") -> None:
        """Write `data` and the end. Raises ConnectionResetError if the connection is closing."""
        if not self._has_ended:
            self.send(data + b"0\r\n\r\n" if self.chunked_here else data)
            self._has_ended = True


def make_head(version: HttpVersion, status: int, reason: str, fields: CIMultiDict[str]) -> bytes:
    """Return the head of an answer. Raises ValueError for a field with a control character."""
    fields.setdefault(_DATE, _format_date(int(time.time())))
    lines = [f"HTTP/{version.major}.{version.minor} {status} {reason}"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    if _FORBIDDEN.search("".join(lines)):
        raise ValueError("a field of an answer has a control character")
    lines += ("", "")
    return "\r\n".join(lines).encode()


@functools.lru_cache(maxsize=1)
def _format_date(seconds: int) -> str:
    return formatdate(seconds, usegmt=True)
