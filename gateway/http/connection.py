"""A client's connection, as the modes see it, and what it does whichever way aiohttp's server is used."""

import asyncio
import io
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from aiohttp import web

from ..policy.refusal import Reason, Refusal
from .flushing import LITTLE_BYTES, Unsent
from .incoming import Incoming
from .malformed import explain
from .problems import problem

_MOST_UNSENT_BYTES = 128 * 1024
_MOST_GARBAGE_BYTES = 64 * 1024  # may be in flight before the client can notice that the gateway stopped reading
_TCP_NOTSENT_LOWAT = 25  # of Linux; Python names it since 3.12


Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Writing(Protocol):
    """A writer to a connection that does not wait."""

    def pause(self) -> None:
        """Pause: the connection's buffer is over its high-water mark."""

    def resume(self) -> None:
        """Resume: it has drained."""

    def lost(self) -> None:
        """Stop: the connection is gone."""


class WholeBody(io.BytesIO):
    """A sink that collects a complete body."""

    def is_closing(self) -> bool:
        """Return False: the buffer never closes."""
        return False


class ClientConnection(web.RequestHandler):
    """aiohttp's server protocol, which pauses a writer past aiohttp, and treats a half-close as a disconnect.

    An orderly disconnect and a half-close look the same. Waiting for the difference would keep the upstream request of a client that never
    reads. The head of a request may take `head_seconds` from its first byte and have about `max_head_bytes`. `rejected` is called with each
    refusal made here. If `full` returns a refusal, that is all that a new connection gets.

    After bytes that are not HTTP nothing is parsed or kept. If they follow an open stream and go on, the connection is aborted.
    """

    __slots__ = (
        "_drained",
        "_full",
        "_garbage_bytes",
        "_head_seconds",
        "_head_timer",
        "_is_full",
        "_max_head_bytes",
        "_rejected",
        "count_body",
        "is_deaf",
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
        self._head_seconds = head_seconds
        self._max_head_bytes = max_head_bytes
        self._rejected = rejected
        self._head_timer: asyncio.TimerHandle | None = None
        self._drained: asyncio.Future[None] | None = None
        self._is_full = False
        self._garbage_bytes = 0
        self.is_deaf = False
        """Whether nothing more is read as HTTP."""
        self.writing: Writing | None = None
        """Is paused and resumed with the transport, and told when that is gone."""
        self.count_body: Callable[[], None] | None = None
        """Is called when more of a request's body may have come."""
        self.sent: list[Callable[[], None]] = []
        """Are called when the answer that is being sent has left, or the connection is gone."""

    @property
    def is_idle(self) -> bool:
        """Whether no request is in progress, and the connection is not being closed."""
        raise NotImplementedError

    @property
    def writing_paused(self) -> bool:
        """Whether the transport's buffer is over its high-water mark."""
        return self._is_full

    def prepare_for_stream(self) -> None:
        """Prepare for an answer that may stay open for days.

        The kernel would take megabytes for a client that does not read; now it says that the socket is full when 128 KiB are not sent yet.
        """
        sock = self.transport.get_extra_info("socket") if self.transport is not None else None
        if sys.platform == "linux" and sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, _MOST_UNSENT_BYTES)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        refusal = self._full()
        super().connection_made(transport)
        if refusal is not None:
            self._refuse(refusal)

    def _refuse(self, refusal: Refusal) -> None:
        """Answer what is no request, and close. An answer that is in progress is sent before."""
        raise NotImplementedError

    def _reject(self, refusal: Refusal) -> web.Response:
        """Report a refusal, and return its answer."""
        self._rejected(refusal.reason, refusal.status)
        return problem(refusal.status, refusal.detail, code=refusal.reason)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answer an invalid request, or an exception in the handler. Raises ConnectionError if the answer has begun."""
        super().handle_error(request, status, exc, message)  # logs it
        if isinstance(request, Incoming) and request.has_answer:
            raise ConnectionError("the answer has begun")
        response = self._reject(explain(exc) if exc is not None else Refusal(status, "malformed", "the request could not be served"))
        response.force_close()
        if isinstance(request, Incoming):
            request.complete(response)
        return response

    def _drop_garbage(self, data: bytes) -> None:
        """Count what follows invalid HTTP. Without an open stream, the error answer ends the connection."""
        self._garbage_bytes += len(data)
        if self._garbage_bytes > _MOST_GARBAGE_BYTES and self.writing is not None and self.transport is not None:
            self.transport.abort()

    def _await_head(self) -> None:
        """Start the time limit of a head that has begun."""
        if self._head_timer is None:
            self._head_timer = asyncio.get_running_loop().call_later(self._head_seconds, self._cut_head)

    def _cut_head(self) -> None:
        self._head_timer = None
        self._refuse(Refusal(408, "head", f"the head of the request took more than {self._head_seconds:g} s"))

    def _forget_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    async def send_rest(self) -> None:
        """Return when little of what was written is unsent, or the connection is gone.

        aiohttp goes on as soon as the transport's buffer is below its high-water mark, and waits for that without a limit of time. Then the
        answer would no longer count for its client, while its memory and its connection stay.
        """
        transport = self.transport
        if transport is None or transport.is_closing() or transport.get_write_buffer_size() <= LITTLE_BYTES:
            return
        unsent = Unsent(transport)
        transport.set_write_buffer_limits(high=LITTLE_BYTES)
        self._drained = asyncio.get_running_loop().create_future()
        try:
            await self._drained
        finally:
            unsent.stop()
            self._drained = None
        if self.transport is not None:
            transport.set_write_buffer_limits()

    def _note_sent(self) -> None:
        for call in self.sent:
            call()
        self.sent.clear()

    def _note_drained(self) -> None:
        self._is_full = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._is_full = True
        if self.writing is not None:
            self.writing.pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._note_drained()
        if self.writing is not None:
            self.writing.resume()

    def eof_received(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        writing, self.writing = self.writing, None
        self._forget_head()
        if writing is not None:
            writing.lost()  # now: before aiohttp cancels the handler, a write would raise in uvloop
        self._note_drained()
        super().connection_lost(exc)
        self._note_sent()


class ClientServer(web.Server):
    """The server of the public port. Its protocols are `connection`s."""

    def __init__(self, handler: Handler, *, connection: type[ClientConnection], request_factory: Any, **options: Any) -> None:
        super().__init__(handler, request_factory=request_factory, handler_cancellation=True)
        self._connection_kind = connection
        self._options = {"loop": asyncio.get_running_loop(), "access_log": None, "auto_decompress": False} | options

    def __call__(self) -> web.RequestHandler:
        return self._connection_kind(self, **self._options)

    def count_connections(self) -> int:
        """Return how many connections there are."""
        return len(self.connections)

    def close_idle(self, count: int) -> int:
        """Close `count` connections without a request in progress, the oldest first, and return how many there were."""
        closed = 0
        for protocol in self.connections:
            if isinstance(protocol, ClientConnection) and protocol.is_idle:
                protocol.force_close()
                closed += 1
                if closed >= count:
                    break
        return closed


def connection_of(request: web.BaseRequest) -> ClientConnection:
    """Return the connection that a request came on."""
    protocol = request.protocol
    assert isinstance(protocol, ClientConnection)
    return protocol


def when_sent(request: web.BaseRequest, call: Callable[[], None]) -> None:
    """Call `call` when the answer to a request, which is about to be returned, has left or its connection is gone."""
    protocol = request.protocol
    if isinstance(protocol, ClientConnection) and protocol.transport is not None:
        protocol.sent.append(call)
    else:
        call()


def comes_from_peer(request: web.BaseRequest) -> bool:
    """Return whether another worker of this gateway has handed the request over, on a Unix socket: then there is no address."""
    return request.remote == ""
