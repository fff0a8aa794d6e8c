"""A client's connection, as the modes see it, however aiohttp's server is used below."""

import asyncio
import io
from collections.abc import Callable, Iterable
from typing import Protocol

from aiohttp import web
from multidict import CIMultiDict


class Writing(Protocol):
    """A writer to a connection that does not wait."""

    def pause(self) -> None:
        """Pause: the connection's buffer is over its high-water mark."""

    def resume(self) -> None:
        """Resume: it has drained."""

    def lost(self) -> None:
        """Stop: the connection is gone."""


class Sink(Protocol):
    """A transport to a client, or what stands before it."""

    def write(self, data: bytes) -> object:
        """Write `data`."""

    def writelines(self, data: Iterable[bytes]) -> object:
        """Write all of `data`."""

    def is_closing(self) -> bool:
        """Return whether it is closing."""

    def get_write_buffer_size(self) -> int:
        """Return how many bytes it has not sent yet."""

    def abort(self) -> object:
        """Close it at once, and drop what it has not sent."""


class WholeBody(io.BytesIO):
    """A sink that collects a complete body."""

    def is_closing(self) -> bool:
        """Return False: the buffer never closes."""
        return False


class AnswerHead(web.StreamResponse):
    """An answer whose body is written to a sink."""

    chunked_here = False
    """Whether what writes to the sink makes the HTTP chunks; known once the answer is prepared."""

    def open_sink(self, request: web.BaseRequest) -> Sink:
        """Send the head, and return what takes the body."""
        raise NotImplementedError

    async def flush(self) -> None:
        """Return when the answer may end behind what was written to the sink."""

    def send_head(self) -> None:
        """Send the head if it was not sent before."""


class ClientConnection:
    """The part of both server protocols that the modes use."""

    __slots__ = ()

    transport: asyncio.Transport | None
    count_body: Callable[[], None] | None
    """Is called when more of a request's body may have come."""
    sent: list[Callable[[], None]]
    """Are called when the answer that is being sent has left, or the connection is gone."""

    @property
    def is_idle(self) -> bool:
        """Whether no request is in progress, and the connection is not being closed."""
        raise NotImplementedError

    @property
    def writing_paused(self) -> bool:
        """Whether the transport's buffer is over its high-water mark."""
        raise NotImplementedError

    def written_by(self, writing: Writing | None) -> None:
        """Pause and resume `writing` with the transport, and tell it when that is gone; None: no longer."""
        raise NotImplementedError

    def new_answer(self, status: int, headers: CIMultiDict[str], reason: str | None = None) -> AnswerHead:
        """Return an answer for a request on this connection."""
        raise NotImplementedError

    def prepare_for_stream(self) -> None:
        """Prepare for an answer that may stay open for days."""


class ClientServer(web.Server):
    """The server of the public port, whose protocols are `ClientConnection`s."""

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
