"""The requests of the public port, and how they are answered, by aiohttp's documented interface."""

import contextlib
from functools import partial
from typing import Any

from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy

from ..policy.target import restore
from .connection import ClientServer, Handler, connection_of
from .documented_protocol import DocumentedProtocol
from .incoming import Incoming


class DocumentedIncoming(Incoming):
    """A request whose header fields can be replaced."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._fields: CIMultiDictProxy[str] = super().headers

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        """The header fields."""
        return self._fields

    @property
    def raw_path(self) -> str:
        """The target as received."""
        path = super().raw_path
        protocol = self.protocol
        return restore(path, protocol.first_line) if isinstance(protocol, DocumentedProtocol) and protocol.first_line else path

    def _replace_headers(self, fields: CIMultiDict[str]) -> None:
        self._fields = CIMultiDictProxy(fields)


def make_server(handler: Handler, requests: dict[str, Any], options: dict[str, Any]) -> ClientServer:
    """Return the server, with the options of its requests and connections."""
    make_request = partial(DocumentedIncoming, **requests)
    return ClientServer(_answering_to_the_end(handler), connection=DocumentedProtocol, request_factory=make_request, **options)


def _answering_to_the_end(handler: Handler) -> Handler:
    """Return a handler that sends the whole answer of `handler`, so that aiohttp finds nothing left to do."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        connection = connection_of(request)
        assert isinstance(connection, DocumentedProtocol)
        connection.begin(request)
        try:
            response = await handler(request)
            if isinstance(request, Incoming):
                request.complete(response)
            if connection.is_deaf:
                response.force_close()
            with contextlib.suppress(ConnectionError):  # aiohttp finds that out as well
                await response.prepare(request)
                await response.write_eof()
                await connection.send_rest()
            return response
        finally:
            connection.finish(request)

    return answer
