"""aiohttp's documented server protocol, given one request at a time, and only once its head is whole."""

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from aiohttp import web
from multidict import CIMultiDict

from ..policy.refusal import Reason, Refusal
from .connection import AnswerHead, ClientConnection, Writing
from .documented_answer import DocumentedHead
from .flushing import LITTLE_BYTES, Unsent
from .headers import head_bytes
from .incoming import Incoming
from .malformed import explain
from .problems import problem
from .request_framing import Body, Refused, begins_request, body_of, for_parser, head_too_large, take_head

log = logging.getLogger("aiohttp.server")

_MOST_GARBAGE_BYTES = 64 * 1024


class DocumentedProtocol(web.RequestHandler, ClientConnection):
    """aiohttp's server protocol behind the framing of requests, with the limits of `DownstreamProtocol`.

    A client that half-closes has left. The head of a request may take `head_seconds` and have about `max_head_bytes`. `rejected` is told
    what is refused here.
    """

    def __init__(
        self,
        manager: web.Server,
        *,
        loop: asyncio.AbstractEventLoop,
        head_seconds: float,
        max_head_bytes: int,
        rejected: Callable[[Reason, int], None],
        full: Callable[[], Refusal | None],
        **options: Any,
    ) -> None:
        super().__init__(manager, loop=loop, **options)
        self._event_loop = loop
        self._head_seconds = head_seconds
        self._max_head_bytes = max_head_bytes
        self._reject = rejected
        self._refuse_client = full
        self.writing: Writing | None = None
        self.count_body: Callable[[], None] | None = None
        self.sent: list[Callable[[], None]] = []
        self.first_line = b""
        """The newest request's first line as received, if it is not ASCII."""
        self.is_deaf = False
        """Whether nothing more is read as HTTP."""
        self._pending = bytearray()  # received, and not given to aiohttp
        self._body: Body | None = None  # that is not complete
        self._request: web.BaseRequest | None = None
        self._in_progress = False  # a request is with aiohttp
        self._body_error: web.RequestPayloadError | None = None
        self._head_timer_of_gateway: asyncio.TimerHandle | None = None
        self._is_full = False
        self._drained: asyncio.Future[None] | None = None
        self._garbage_bytes = 0

    @property
    def writing_paused(self) -> bool:
        """Whether the transport's buffer is over its high-water mark."""
        return self._is_full

    @property
    def is_idle(self) -> bool:
        """Whether no request is in progress, and the connection is not being closed."""
        return self.transport is not None and not self.transport.is_closing() and not (self._in_progress or self._pending or self._body)

    def written_by(self, writing: Writing | None) -> None:
        self.writing = writing

    def new_answer(self, status: int, headers: CIMultiDict[str], reason: str | None = None) -> AnswerHead:
        """Return an answer for a request on this connection."""
        return DocumentedHead(status=status, reason=reason, headers=headers)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        refusal = self._refuse_client()
        super().connection_made(transport)
        if refusal is not None:
            self._refuse(refusal)

    def data_received(self, data: bytes) -> None:
        if not data:
            super().data_received(b"")  # aiohttp goes on with what it holds
        elif self.is_deaf:
            self._garbage_bytes += len(data)
            if self._garbage_bytes > _MOST_GARBAGE_BYTES and self.writing is not None and self.transport is not None:
                self.transport.abort()
        else:
            self._pending += data
            self._advance()
        if self.count_body is not None:
            self.count_body()

    def _advance(self) -> None:
        """Give aiohttp what it may have of what came."""
        try:
            while not self.is_deaf and self.transport is not None:
                if self._body is not None:
                    data = self._body.take(self._pending)
                    if self._body.ended:
                        self._body = None
                    if data:
                        super().data_received(data)
                    if self._body is not None:
                        return
                if self._in_progress:
                    self._bound_pending()
                    return
                if not self._begin_request():
                    return
        except Refused as refused:
            self._refuse_body() if self._in_progress else self._refuse(refused.refusal)

    def _begin_request(self) -> bool:
        head = take_head(self._pending, self._max_head_bytes)
        if head is None:
            if self._pending and self._head_timer_of_gateway is None:
                self._head_timer_of_gateway = self._event_loop.call_later(self._head_seconds, self._cut_head)
            return False
        self._forget_head()
        body = body_of(head, self._max_head_bytes)
        data = body.take(self._pending) if body is not None else b""
        self._body = body if body is not None and not body.ended else None
        head, self.first_line = for_parser(head)
        self._in_progress = True
        super().data_received(head + data)
        return True

    def _bound_pending(self) -> None:
        """Read no more than the head of one request behind a request that is in progress."""
        if len(self._pending) <= self._max_head_bytes or self.transport is None:
            return
        if not begins_request(self._pending) and self.writing is not None:
            self.transport.abort()
        else:
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
        for call in self.sent:
            call()
        self.sent.clear()
        if self.transport is not None and not self.is_deaf:
            self.transport.resume_reading()
            self._event_loop.call_soon(self._advance)

    def refuse_large_head(self, request: web.BaseRequest) -> web.StreamResponse | None:
        """Return the answer to a request whose head is too large."""
        if head_bytes(request.raw_headers) <= self._max_head_bytes:
            return None
        refusal = head_too_large(self._max_head_bytes)
        self._stop_reading()
        self._reject(refusal.reason, refusal.status)
        return problem(refusal.status, refusal.detail, code=refusal.reason)

    async def send_end(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Send the rest of an answer, and return when little of it is unsent or its connection is gone."""
        transport = self.transport
        if transport is None:
            return
        unsent = Unsent(transport)
        try:
            await response.prepare(request)
            await response.write_eof()
            if transport.is_closing() or transport.get_write_buffer_size() <= LITTLE_BYTES:
                return
            transport.set_write_buffer_limits(high=LITTLE_BYTES)
            while self._is_full and self.transport is not None:
                self._drained = self._event_loop.create_future()
                await self._drained
            transport.set_write_buffer_limits()
        except ConnectionError:
            return  # aiohttp finds that out as well
        finally:
            unsent.stop()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Return the answer to what aiohttp cannot parse, and to a defect of the gateway's own."""
        self._stop_reading()
        super().handle_error(request, status, exc, message)  # logs it; raises ConnectionError when the answer has begun already
        refusal = explain(exc) if exc is not None else Refusal(status, "malformed", "the request could not be served")
        self._reject(refusal.reason, refusal.status)
        response = problem(refusal.status, refusal.detail, code=refusal.reason)
        if isinstance(request, Incoming):
            request.complete(response)
        response.force_close()
        return response

    def _refuse(self, refusal: Refusal) -> None:
        """Answer what is no request, while no request is in progress, and close."""
        self._stop_reading()
        self._reject(refusal.reason, refusal.status)
        log.info("bad request: %s", refusal.detail)
        transport = self.transport
        if transport is None:
            return
        response = problem(refusal.status, refusal.detail, code=refusal.reason)
        body = response.body if isinstance(response.body, bytes) else b""
        fields = [*response.headers.items(), ("Content-Length", str(len(body))), ("Connection", "close")]
        lines = [f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in fields if name != "Content-Length" or value]
        transport.write("\r\n".join([*lines, "", ""]).encode() + body)
        Unsent(transport)
        transport.close()

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
            self._event_loop.call_soon(request.content.set_exception, error)

    def _stop_reading(self) -> None:
        self.is_deaf = True
        self._pending.clear()
        self._body = None
        self._forget_head()

    def _cut_head(self) -> None:
        self._refuse(Refusal(408, "head", f"the head of the request took more than {self._head_seconds:g} s"))

    def _forget_head(self) -> None:
        if self._head_timer_of_gateway is not None:
            self._head_timer_of_gateway.cancel()
            self._head_timer_of_gateway = None

    def pause_writing(self) -> None:
        super().pause_writing()
        self._is_full = True
        if self.writing is not None:
            self.writing.pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._wake_end()
        if self.writing is not None:
            self.writing.resume()

    def _wake_end(self) -> None:
        self._is_full = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def eof_received(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        writing, self.writing = self.writing, None
        self._stop_reading()
        self._wake_end()
        if writing is not None:
            writing.lost()
        super().connection_lost(exc)
        for call in self.sent:
            call()
        self.sent.clear()
