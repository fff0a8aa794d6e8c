"""aiohttp's documented server protocol, given one request at a time, and only once its head is whole."""

import asyncio
import logging
from typing import Any

from aiohttp import HttpVersion11, web

from ..policy.refusal import Refusal
from .answer import make_head
from .connection import ClientConnection
from .flushing import Unsent
from .request_framing import Body, Refused, body_of, for_parser, take_head

log = logging.getLogger("aiohttp.server")


class DocumentedProtocol(ClientConnection):
    """The connection of a client, whose requests are framed before aiohttp parses them."""

    def __init__(self, manager: web.Server, **options: Any) -> None:
        super().__init__(manager, **options)
        self.first_line = b""
        """The newest request's first line as received, if it is not ASCII."""
        self._pending = bytearray()  # received, and not given to aiohttp
        self._body: Body | None = None  # that is not complete
        self._in_progress = False  # a request is with aiohttp
        self._request: web.BaseRequest | None = None  # once its handler runs
        self._body_error: web.RequestPayloadError | None = None

    @property
    def is_idle(self) -> bool:
        return self.transport is not None and not self.transport.is_closing() and not (self._in_progress or self._pending or self._body)

    def data_received(self, data: bytes) -> None:
        if not data:
            super().data_received(b"")  # aiohttp goes on with what it holds
        elif self.is_deaf:
            self._drop_garbage(data)
        else:
            self._pending += data
            self._advance()
        if self.count_body is not None:
            self.count_body()

    def _advance(self) -> None:
        """Give aiohttp what it may have: the rest of a body, then the next request."""
        try:
            while not self.is_deaf and self.transport is not None:
                head = b""
                if self._body is None:
                    if self._in_progress:
                        self._bound_pending()
                        return
                    taken = take_head(self._pending, self._max_head_bytes)
                    if taken is None:
                        if self._pending:
                            self._await_head()
                        return
                    self._forget_head()
                    self._body = body_of(taken, self._max_head_bytes)
                    head, self.first_line = for_parser(taken)
                body = self._body.take(self._pending) if self._body is not None else b""
                if self._body is not None and self._body.ended:
                    self._body = None
                self._in_progress = self._in_progress or bool(head)
                super().data_received(head + body)
                if self._body is not None:
                    return
        except Refused as refused:
            self._refuse_body() if self._in_progress else self._refuse(refused.refusal)

    def _bound_pending(self) -> None:
        """Read no more than the head of one request behind a request that is in progress. If it is none, a stream is aborted."""
        if len(self._pending) <= self._max_head_bytes or self.transport is None:
            return
        try:
            take_head(self._pending[:], self._max_head_bytes)
        except Refused:
            if self.writing is not None:
                self.transport.abort()
                return
        self.transport.pause_reading()

    def begin(self, request: web.BaseRequest) -> None:
        """Note that a request is being answered."""
        self._request = request
        self._fail_body()

    def finish(self, request: web.BaseRequest) -> None:
        """Note that the answer to a request has left, or its connection is gone."""
        self._request = None
        self._in_progress = False
        if self._body_error is not None:
            request.content.feed_eof()  # or aiohttp would wait for the rest
        self._note_sent()
        if self.transport is not None and not self.is_deaf:
            self.transport.resume_reading()
            asyncio.get_running_loop().call_soon(self._advance)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        self._stop_reading()
        return super().handle_error(request, status, exc, message)

    def _refuse(self, refusal: Refusal) -> None:
        """Answer what is no request, while none is in progress, and close."""
        self._stop_reading()
        log.info("bad request: %s", refusal.detail)
        response = self._reject(refusal)
        if self.transport is None:
            return
        body = response.body if isinstance(response.body, bytes) else b""
        response.headers.update({"Content-Length": str(len(body)), "Connection": "close"})
        self.transport.write(make_head(HttpVersion11, response.status, response.reason, response.headers) + body)
        Unsent(self.transport)
        self.transport.close()

    def _refuse_body(self) -> None:
        """End a body that is not HTTP: its reader learns so at once."""
        self._stop_reading()
        self._body_error = web.RequestPayloadError("the body is not valid HTTP")
        self._fail_body()

    def _fail_body(self) -> None:
        error, request = self._body_error, self._request
        if error is not None and request is not None and not request.content.is_eof():
            request.content.set_exception(error)
            # A reader that the end of a chunk has just woken waits for data again without looking for an exception.
            asyncio.get_running_loop().call_soon(request.content.set_exception, error)

    def _stop_reading(self) -> None:
        self.is_deaf = True
        self._pending.clear()
        self._body = None
        self._forget_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_reading()
        super().connection_lost(exc)
