"""aiohttp's server protocol, extended for responses that are written past aiohttp."""

import asyncio
import socket
import sys
from collections.abc import Callable
from typing import Any

from aiohttp import web
from aiohttp.http import HttpRequestParser
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestHandler, _ErrInfo
from multidict import CIMultiDict

from ..policy.refusal import Reason, Refusal
from .connection import AnswerHead, ClientConnection, Writing
from .flushing import Unsent, send_end
from .malformed import explain
from .messages import Messages, refuse_head
from .problems import problem
from .request_framing import head_too_large
from .response import ResponseHead

_MOST_UNSENT_BYTES = 128 * 1024
_MOST_GARBAGE_BYTES = 64 * 1024  # may be in flight before the client can notice that the gateway stopped reading
_TCP_NOTSENT_LOWAT = 25  # of Linux; Python names it since 3.12


class DownstreamProtocol(RequestHandler, ClientConnection):
    """aiohttp's server protocol, which pauses a writer past aiohttp, and treats a half-close as a disconnect.

    An orderly disconnect and a half-close look the same. Waiting for the difference would keep the upstream request of a client that never
    reads. The head of a request may take `head_seconds` from its first byte and have about `max_head_bytes`. The first request on a
    connection may begin as late as a later one. `rejected` is called with each refusal made here.

    After bytes that are not HTTP nothing is parsed or kept. If they follow an open stream and go on, the connection is aborted.
    """

    __slots__ = (
        "_at_end_of_head",
        "_full",
        "_garbage_bytes",
        "_head_has_begun",
        "_head_seconds",
        "_head_timer",
        "_max_head_bytes",
        "_newest_body",
        "_pending_bytes",
        "_progress",
        "_rejected",
        "count_body",
        "sent",
        "writing",
    )

    def __init__(
        self,
        manager: web.Server,
        *,
        head_seconds: float,
        max_head_bytes: int,
        rejected: Callable[[Reason, int], None],
        full: Callable[[], Refusal | None] = lambda: None,
        **options: Any,
    ) -> None:
        super().__init__(manager, **options)
        self._full = full
        self._messages: Messages = Messages(max_head_bytes)  # type: ignore[assignment]  # has what is used of a deque
        self.writing: Writing | None = None
        self.count_body: Callable[[], None] | None = None
        self.sent: list[Callable[[], None]] = []
        self._head_seconds = head_seconds
        self._max_head_bytes = max_head_bytes
        self._rejected = rejected
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_has_begun = False
        self._progress = 0, 0  # requests, and bytes of the newest one's body
        self._pending_bytes = 0  # received without any parsed result yet
        self._newest_body: StreamReader | None = None
        self._at_end_of_head = False  # whether nothing has arrived after the newest request's head
        self._garbage_bytes: int | None = None  # received after invalid HTTP; None while all is valid

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        refusal = self._full()
        super().connection_made(transport)
        if refusal is not None:
            self._refuse_head(refusal)

    @property
    def is_idle(self) -> bool:
        """Whether no request is in progress, and the connection is not being closed."""
        return self.transport is not None and not self.transport.is_closing() and self._awaits_head()

    def data_received(self, data: bytes) -> None:
        if self._garbage_bytes is not None:
            self._garbage_bytes += len(data)
            if self._garbage_bytes > _MOST_GARBAGE_BYTES and self.writing is not None and self.transport is not None:
                self.transport.abort()  # without an open stream, the error answer ends the connection
            return
        if self._parser is None:
            self._parser = self._make_parser()
        received = data
        if self._messages.begun_line or not data.isascii():
            data = self._messages.make_ascii(data, self._is_between_requests)
        super().data_received(data)
        self._at_end_of_head = False
        if self._messages:
            self._note_body(*self._messages[-1])
            self._at_end_of_head = self._newest_body is None and data.endswith(b"\r\n\r\n")
        if self._awaits_head() and (self._head_has_begun or data.strip(b"\r\n")):  # an empty line may separate two requests
            self._head_has_begun = True
            if self._head_timer is None:
                self._head_timer = self._loop.call_later(self._head_seconds, self._cut_head)
        elif self._head_timer is not None:
            self._forget_head()
        self._bound_pending(received)
        if self.count_body is not None:
            self.count_body()

    def _is_between_requests(self) -> bool:
        """Whether the next bytes begin a request. aiohttp may still be busy with the end of the previous one."""
        return not self._pending_bytes and (self._newest_body is None or self._newest_body.is_eof())

    def _bound_pending(self, received: bytes) -> None:
        """Refuse a head that grows too large, and trailers and chunk extensions likewise: the parser keeps them all."""
        body = self._newest_body
        progress = self._messages.taken, body.total_bytes if body is not None else 0
        if progress != self._progress:
            self._progress, self._pending_bytes = progress, 0
            return
        pending = received.strip(b"\r\n")
        if b"\n" not in pending and self._is_between_requests():
            self._messages.begun_line = pending
        self._pending_bytes += len(pending)
        if self._pending_bytes > self._max_head_bytes and not self._close:
            is_busy = not self._awaits_head()
            self._refuse_head(head_too_large(self._max_head_bytes))
            if is_busy:
                self._note_body(*self._messages[-1])

    def _make_parser(self) -> HttpRequestParser:
        """Return a parser like the one that aiohttp made for this connection."""
        return HttpRequestParser(
            self,
            self._loop,
            self._read_bufsize,
            max_line_size=self.max_line_size,
            max_field_size=self.max_field_size,
            max_headers=self.max_headers,
            payload_exception=web.RequestPayloadError,
            auto_decompress=False,
            max_msg_queue_size=self._max_msg_queue_size,
        )

    def drop_parser(self) -> None:
        """Drop the parser and the head that it holds until more data arrives, unless a request is in progress."""
        if self._at_end_of_head and not self._messages and not self._upgraded and self.transport is not None:
            self._parser = None

    def _note_body(self, message: object, body: StreamReader) -> None:
        """End a body whose bytes are not HTTP. aiohttp queues the error behind its request, which would wait forever for the rest."""
        if not isinstance(message, _ErrInfo):
            self._newest_body = body if body is not EMPTY_PAYLOAD else None
            return
        self._garbage_bytes = 0
        message.exc.__traceback__ = None  # its frames hold the received data
        if self._newest_body is not None and not self._newest_body.is_eof():
            error = web.RequestPayloadError(message.message)
            self._newest_body.set_exception(error)
            # A reader that the end of a chunk has just woken waits for data again without looking for an exception.
            self._loop.call_soon(self._newest_body.set_exception, error)
            self._lingering_time = 0.0  # there is no rest to wait for

    def _awaits_head(self) -> bool:
        """Whether the next request has not arrived yet."""
        waiter = self._waiter
        return not self._messages and not self._close and (not self._request_count if waiter is None else not waiter.done())

    def _cut_head(self) -> None:
        if self._awaits_head():
            self._refuse_head(Refusal(408, "head", f"the head of the request took more than {self._head_seconds:g} s"))
        else:
            self._forget_head()

    def _refuse_head(self, refusal: Refusal) -> None:
        self._forget_head()
        self._messages.append(refuse_head(refusal))
        self._close = True  # nothing more is read
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _forget_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
        self._head_timer = None
        self._head_has_begun = False

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answer an invalid request, or an exception in the handler."""
        super().handle_error(request, status, exc, message)  # logs it, or raises ConnectionError if the answer has begun
        refusal = explain(exc) if exc is not None else Refusal(status, "malformed", "the request could not be served")
        self._rejected(refusal.reason, refusal.status)
        response = problem(refusal.status, refusal.detail, code=refusal.reason)
        response.force_close()
        return response

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the end of an answer, and return when little of it is unsent."""
        finishing = super().finish_response(request, resp, start_time)
        try:
            return await send_end(self, finishing)
        finally:
            self._note_sent()

    async def start(self) -> None:
        await super().start()
        if self.transport is not None and self.transport.is_closing():
            Unsent(self.transport)  # the transport does not close before its client has read what was sent

    def _note_sent(self) -> None:
        for call in self.sent:
            call()
        self.sent.clear()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.writing is not None:
            self.writing.pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.writing is not None:
            self.writing.resume()

    def connection_lost(self, exc: BaseException | None) -> None:
        writing, self.writing = self.writing, None
        self._forget_head()
        if writing is not None:
            writing.lost()  # now: before aiohttp cancels the handler, a write would raise in uvloop
        super().connection_lost(exc)
        self._note_sent()

    def eof_received(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def written_by(self, writing: Writing | None) -> None:
        self.writing = writing

    def new_answer(self, status: int, headers: CIMultiDict[str], reason: str | None = None) -> AnswerHead:
        return ResponseHead(status=status, reason=reason, headers=headers)

    def prepare_for_stream(self) -> None:
        """Prepare for an answer that may stay open for days.

        aiohttp keeps a keep-alive timer also while a request is served, which wakes up and does nothing: half a KiB a connection. The
        kernel would take megabytes for a client that does not read; now it says that the socket is full when 128 KiB are not sent yet.
        """
        self.drop_parser()
        if self._keepalive_handle is not None:
            self._keepalive_handle.cancel()
            self._keepalive_handle = None
        sock = self.transport.get_extra_info("socket") if self.transport is not None else None
        if sys.platform == "linux" and sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, _MOST_UNSENT_BYTES)
