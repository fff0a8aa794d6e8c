"""The server of the public port and its requests, on the fast path."""

from functools import partial
from typing import Any

from aiohttp import HttpVersion10
from multidict import CIMultiDict, CIMultiDictProxy

from .connection import ClientServer, Handler
from .downstream import DownstreamProtocol
from .incoming import Incoming
from .messages import NO_FIELDS, Head


class DownstreamServer(ClientServer):
    """A server that counts its connections without a list of them."""

    def count_connections(self) -> int:
        return len(self._connections)


class FastIncoming(Incoming):
    """A request whose head can be replaced and released."""

    def _replace_headers(self, fields: CIMultiDict[str]) -> None:
        self._headers = CIMultiDictProxy(fields)
        self._cache.pop("headers", None)  # aiohttp caches the first result

    def answer_as_http_10(self) -> None:
        self._cache["version"] = HttpVersion10

    def release_memory(self) -> None:
        if isinstance(self._message, Head):
            self._message.clear()
            self._rel_url = self._message.url
        self._headers = NO_FIELDS
        self._transport_peername = self._transport_sockname = None
        self._cache.clear()
        self._protocol._cache.clear()  # aiohttp fills it again for the connection's next request


def make_server(handler: Handler, requests: dict[str, Any], options: dict[str, Any]) -> ClientServer:
    """Return the server, with the options of its requests and connections."""
    return DownstreamServer(handler, connection=DownstreamProtocol, request_factory=partial(FastIncoming, **requests), **options)
