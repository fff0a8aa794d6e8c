"""Requests that have come on a connection and are not served yet, and what the connection keeps of one while it is served."""

import re
from collections.abc import Callable
from typing import Any

from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import _ErrInfo
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from .headers import head_bytes
from .malformed import HeadRefused
from .refusal import Refusal
from .target import restore, to_ascii

_REQUEST_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ ")
NO_FIELDS: CIMultiDictProxy[str] = CIMultiDictProxy(CIMultiDict())
_NO_URL = URL()


def head_too_large(max_head_bytes: int) -> Refusal:
    """Return the refusal of a head that passes this limit."""
    return Refusal(431, "head", f"the head passed {max_head_bytes} bytes, which is the limit")


def refuse_head(refusal: Refusal) -> tuple[_ErrInfo, StreamReader]:
    """Return what aiohttp's server takes for a request that cannot be read."""
    return _ErrInfo(status=refusal.status, exc=HeadRefused(refusal), message=refusal.detail), EMPTY_PAYLOAD


class Head:
    """The head of a request in the place of aiohttp's, which nobody can empty, and which has every header field twice.

    The loop of a connection holds it until the answer has ended, and that may be days.
    """

    __slots__ = ("chunked", "compression", "headers", "method", "path", "should_close", "upgrade", "url", "version")

    raw_headers = ()
    """Nobody here reads them."""

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
        """Forgets what may be long."""
        self.headers = NO_FIELDS
        self.path = ""
        self.url = _NO_URL


class Messages(list[Any]):
    """What aiohttp's server keeps in a deque: pairs of head and body. A deque takes 700 bytes also when it is empty."""

    __slots__ = ("_line", "_max_head_bytes", "begun_line", "taken")

    def __init__(self, max_head_bytes: int) -> None:
        super().__init__()
        self._max_head_bytes = max_head_bytes
        self._line = b""  # the next request's first line as it came, when it is not ASCII
        self.taken = 0
        """How many have come in all."""
        self.begun_line = b""
        """As much of it as has come, until it is complete."""

    def append(self, pair: tuple[Any, Any]) -> None:
        """Take what the parser gives; an error in place of a head that is too large."""
        message, body = pair
        if isinstance(message, RawRequestMessage):
            too_large = head_bytes(message.raw_headers) > self._max_head_bytes
            pair = refuse_head(head_too_large(self._max_head_bytes)) if too_large else (Head(message, self._line), body)
            self._line = b""
        self.taken += 1
        super().append(pair)

    def make_ascii(self, data: bytes, begins: Callable[[], bool]) -> bytes:
        """Return `data` so that the parser takes a target beyond ASCII; its message gets the target as it came.

        `begins` tells whether a request begins with `data`. Header fields and bodies stay as they are.
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
        """Gives what came first. There are never many."""
        return self.pop(0)  # type: ignore[no-any-return]
