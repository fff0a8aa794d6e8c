"""Requests that have come on a connection and are not served yet, and what the connection keeps of one while it is served."""

from typing import Any

from aiohttp.http_parser import RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

NO_FIELDS: CIMultiDictProxy[str] = CIMultiDictProxy(CIMultiDict())
_NO_URL = URL()


class Head:
    """The head of a request in the place of aiohttp's, which nobody can empty, and which has every header field twice.

    The loop of a connection holds it until the answer has ended, and that may be days.
    """

    __slots__ = ("chunked", "compression", "headers", "method", "path", "should_close", "upgrade", "url", "version")

    raw_headers = ()
    """Nobody here reads them."""

    def __init__(self, message: RawRequestMessage) -> None:
        self.method = message.method
        self.path = message.path
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

    __slots__ = ()

    def append(self, pair: tuple[Any, Any]) -> None:
        """Takes what the parser gives."""
        message, body = pair
        super().append((Head(message), body) if isinstance(message, RawRequestMessage) else pair)

    def popleft(self) -> tuple[Any, Any]:
        """Gives what came first. There are never many."""
        return self.pop(0)  # type: ignore[no-any-return]
