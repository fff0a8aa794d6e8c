"""Send answers by aiohttp's documented `StreamResponse.write`."""

import asyncio
from collections.abc import Iterable

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from .connection import AnswerHead, Sink, connection_of
from .flushing import Unsent
from .incoming import Incoming


class DocumentedHead(AnswerHead):
    """An answer whose head aiohttp sends and whose body it frames."""

    _sink: "ResponseSink | None" = None

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        if isinstance(request, Incoming):
            request.complete(self)
        return await super().prepare(request)

    def open_sink(self, request: web.BaseRequest) -> Sink:
        assert request.transport is not None
        self._sink = ResponseSink(self, request.transport)
        connection_of(request).sent.append(self._sink.close)
        return self._sink

    async def flush(self) -> None:
        """Return when all that was written to the sink is with aiohttp, or the connection is gone."""
        if self._sink is not None:
            await self._sink.flush()


class ResponseSink:
    """A sink that a task empties into a response. aiohttp's back-pressure stops the task, and pauses the writer by the transport."""

    def __init__(self, response: web.StreamResponse, transport: asyncio.Transport) -> None:
        self._response = response
        self._transport = transport
        self._pending: list[bytes] = []
        self._wake, self._empty = asyncio.Event(), asyncio.Event()
        self._empty.set()
        self._task = asyncio.create_task(self._run())

    def __repr__(self) -> str:
        return f"<ResponseSink pending={len(self._pending)}>"

    def write(self, data: bytes) -> None:
        """Write `data`, unless the connection is closing."""
        if not self.is_closing() and not self._task.done():
            self._pending.append(data)
            self._empty.clear()
            self._wake.set()

    def writelines(self, data: Iterable[bytes]) -> None:
        """Write all of `data`."""
        self.write(b"".join(data))

    def is_closing(self) -> bool:
        """Return whether the transport is closing."""
        return self._transport.is_closing()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes are not sent yet."""
        return sum(map(len, self._pending)) + (0 if self._transport.is_closing() else self._transport.get_write_buffer_size())

    def abort(self) -> None:
        """Close the transport at once, and drop what was not sent."""
        self._transport.abort()

    def close(self) -> None:
        """Stop: nothing is written any more."""
        self._task.cancel()

    async def flush(self) -> None:
        """Return when all is written. A client that takes none of it is cut off."""
        if self._empty.is_set():
            return
        unsent = Unsent(self._transport)
        try:
            await self._empty.wait()
        finally:
            unsent.stop()

    async def _run(self) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                data = b"".join(self._pending)
                self._pending.clear()
                await self._response.write(data)
                if not self._pending:
                    self._empty.set()
        except ConnectionError:
            self._pending.clear()  # the client has left, which the connection tells the writer
        finally:
            self._empty.set()
