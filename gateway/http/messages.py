"""Pending requests of a connection, and the head that the connection keeps of a request in progress."""

import re
from collections.abc import Callable
from typing import Any

from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import _ErrInfo
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from ..policy.field_names import FIELD_NAME
from ..policy.refusal import Refusal
from ..policy.target import restore, to_ascii
from .headers import head_bytes
from .malformed import HeadRefused
from .request_framing import head_too_large

_REQUEST_LINE = re.compile(rb"%b " % FIELD_NAME.encode())
NO_FIELDS: CIMultiDictProxy[str] = CIMultiDictProxy(CIMultiDict())
_NO_URL = URL()


def refuse_head(refusal: Refusal) -> tuple[_ErrInfo, StreamReader]:
    """Return what aiohttp's server treats as a malformed request."""
    return _ErrInfo(status=refusal.status, exc=HeadRefused(refusal), message=refusal.detail), EMPTY_PAYLOAD


class Head:
    """The head of a request. aiohttp's own cannot be cleared, and holds every header field twice.

    The connection's loop holds it until the answer has ended, which may take days.
    """

    __slots__ = ("chunked", "compression", "headers", "method", "path", "should_close", "upgrade", "url", "version")

    raw_headers = ()
    """Empty, because they are not used."""

    def __init__(self, message: RawRequestMessage, first_line: bytes) -> None:
        self.method = message.method
        self.path = restore(message.path, first_line) if first_line else message.path
        self.version = message.version
        self.headers = message.headers
        self.should_close = message.should_close
        self.compression = message.compression
        self.upgrade = message.upgrade
        self.chunked = message.chunked
        self.url = message.url

    def __repr__(self) -> str:
        return f"<Head {self.method}>"

    def clear(self) -> None:
        """Release the parts that may be large."""
        self.headers = NO_FIELDS
        self.path = ""
        self.url = _NO_URL


class Messages(list[Any]):
    """Pairs of head and body, in place of the deque of aiohttp's server: an empty deque takes 700 bytes."""

    __slots__ = ("_line", "_max_head_bytes", "begun_line", "taken")

    def __init__(self, max_head_bytes: int) -> None:
        super().__init__()
        self._max_head_bytes = max_head_bytes
        self._line = b""  # the next request's first line as received, if not ASCII
        self.taken = 0
        """Number of requests received in total."""
        self.begun_line = b""
        """The received part of an incomplete first line."""

    def append(self, pair: tuple[Any, Any]) -> None:
        """Append a request from the parser, or an error in place of a head that is too large."""
        message, body = pair
        if isinstance(message, RawRequestMessage):
            too_large = head_bytes(message.raw_headers) > self._max_head_bytes
            pair = refuse_head(head_too_large(self._max_head_bytes)) if too_large else (Head(message, self._line), body)
            self._line = b""
        self.taken += 1
        super().append(pair)

    def make_ascii(self, data: bytes, begins: Callable[[], bool]) -> bytes:
        """Return `data` with a non-ASCII target encoded for the parser. The request's head gets the target as received.

        `begins` returns whether a request begins with `data`. Header fields and bodies are unchanged.
        """
        begun, self.begun_line = self.begun_line, b""
        if not begun and not begins():
            return data
        begin = 0 if begun else len(data) - len(data.lstrip(b"\r\n"))
        end = data.find(b"\n", begin)
        line = data[begin:] if end < 0 else data[begin:end]
        whole = begun + line
        if end < 0:
            self.begun_line = whole
        if whole.isascii() or not _REQUEST_LINE.match(whole):
            return data
        self._line = whole
        return data[:begin] + to_ascii(line) + data[begin + len(line) :]

    def popleft(self) -> tuple[Any, Any]:
        """Remove and return the first pair. There are never many, so a list is fast enough."""
        return self.pop(0)  # type: ignore[no-any-return]
