"""aiohttp's server protocol with the gateway's limits, on the fast path."""

from typing import Any

from aiohttp import web
from aiohttp.http import HttpRequestParser
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import _ErrInfo

from ..policy.refusal import Refusal
from .connection import ClientConnection
from .flushing import Unsent
from .incoming import Incoming
from .messages import Messages, refuse_head
from .request_framing import head_too_large


class DownstreamProtocol(ClientConnection):
    """The connection of a client, which aiohttp's parser reads at once."""

    __slots__ = (
        "_at_end_of_head",
        "_head_has_begun",
        "_newest_body",
        "_pending_bytes",
        "_progress",
    )

    def __init__(self, manager: web.Server, **options: Any) -> None:
        super().__init__(manager, **options)
        self._messages: Messages = Messages(self._max_head_bytes)  # type: ignore[assignment]  # has what is used of a deque
        self._head_has_begun = False
        self._progress = 0, 0  # requests, and bytes of the newest one's body
        self._pending_bytes = 0  # received without any parsed result yet
        self._newest_body: StreamReader | None = None
        self._at_end_of_head = False  # whether nothing has arrived after the newest request's head

    @property
    def is_idle(self) -> bool:
        return self.transport is not None and not self.transport.is_closing() and self._awaits_head()

    def data_received(self, data: bytes) -> None:
        if self.is_deaf:
            self._drop_garbage(data)
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
            self._await_head()
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
            self._refuse(head_too_large(self._max_head_bytes))
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

    def _note_body(self, message: object, body: StreamReader) -> None:
        """End a body whose bytes are not HTTP. aiohttp queues the error behind its request, which would wait forever for the rest."""
        if not isinstance(message, _ErrInfo):
            self._newest_body = body if body is not EMPTY_PAYLOAD else None
            return
        self.is_deaf = True
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
            super()._cut_head()
        else:
            self._forget_head()

    def _refuse(self, refusal: Refusal) -> None:
        self._forget_head()
        self._messages.append(refuse_head(refusal))
        self._close = True  # nothing more is read
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _forget_head(self) -> None:
        super()._forget_head()
        self._head_has_begun = False

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the end of an answer, and return when little of it is unsent."""
        if isinstance(request, Incoming):
            request.complete(resp)
        try:
            finished = await super().finish_response(request, resp, start_time)
            await self.send_rest()
            return finished
        finally:
            self._note_sent()

    async def start(self) -> None:
        await super().start()
        if self.transport is not None and self.transport.is_closing():
            Unsent(self.transport)  # the transport does not close before its client has read what was sent

    def prepare_for_stream(self) -> None:
        """Prepare for an answer that may stay open for days.

        The parser and the head that it holds are dropped until more data arrives, unless a request is in progress. aiohttp keeps a
        keep-alive timer also while a request is served, which wakes up and does nothing: half a KiB a connection.
        """
        super().prepare_for_stream()
        if self._at_end_of_head and not self._messages and not self._upgraded and self.transport is not None:
            self._parser = None
        if self._keepalive_handle is not None:
            self._keepalive_handle.cancel()
            self._keepalive_handle = None
