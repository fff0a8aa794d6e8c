"""aiohttp's low-level server and its requests, by the documented interface."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy

from ..policy.target import restore
from .connection import ClientServer
from .documented_protocol import DocumentedProtocol
from .incoming import Incoming

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


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


class DocumentedServer(ClientServer):
    """aiohttp's low-level server with `DocumentedProtocol`s."""

    def __init__(self, handler: Handler, *, request_factory: Any, **options: Any) -> None:
        self._answer_to = handler
        self._options = options
        self._running_loop = asyncio.get_running_loop()
        super().__init__(self._answer, request_factory=request_factory, handler_cancellation=options.pop("handler_cancellation"))

    def __call__(self) -> web.RequestHandler:
        return DocumentedProtocol(self, loop=self._running_loop, **self._options)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request to the last byte of its answer. aiohttp finds nothing left to do with what this returns."""
        connection = request.protocol
        assert isinstance(connection, DocumentedProtocol)
        connection.begin(request)
        try:
            response = connection.refuse_large_head(request) or await self._answer_to(request)
            if not response.prepared:
                if isinstance(request, Incoming):
                    request.complete(response)
                if connection.is_deaf:
                    response.force_close()
            await connection.send_end(request, response)
            return response
        finally:
            connection.finish(request)
