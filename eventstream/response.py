"""Additions to aiohttp's responses that reading an event stream needs."""

import asyncio
from collections.abc import Iterator

import aiohttp

from .decoding import PART_BYTES, find_decoder
from .request import NETWORK_ERRORS

ENDED = "the server ended the stream"


class Body:
    """The body of a response without its content coding, in parts of bounded size. The event loop runs between two of them."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self._content = response.content
        self._decoder = find_decoder(", ".join(response.headers.getall("Content-Encoding", ())))
        self._parts: Iterator[bytes] = iter(())
        self._failure: Exception | None = None
        self._has_more = False  # whether the next part may be available already

    def __repr__(self) -> str:
        return f"<Body {self._content}>"

    async def read(self) -> bytes:
        """Return the next part, empty at the end. Cancelling it loses nothing.

        Raises aiohttp's errors, after the decoded parts of everything before, and those of `Decoder.decode`.
        """
        while True:
            if self._has_more:
                await asyncio.sleep(0)
            part = next(self._parts, None)
            if part:
                self._has_more = True
                return part
            if part is None:
                chunk = await self._receive()
                if self._decoder is None or not (chunk or self._failure):
                    return chunk
                self._parts = self._decoder.decode(chunk)

    def take_rest(self) -> bytes:
        """Return the unread bytes that came before the connection broke: aiohttp keeps them, but raises the error instead."""
        return take_rest(self._content) if self._decoder is None else b""

    async def _receive(self) -> bytes:
        if self._failure is not None:
            raise self._failure
        try:
            chunk = await self._content.read(PART_BYTES)
        except NETWORK_ERRORS as error:
            if self._decoder is None:
                raise
            self._failure, chunk = error, take_rest(self._content)
        self._has_more = len(chunk) == PART_BYTES
        return chunk


def leave(response: aiohttp.ClientResponse) -> None:
    """Abort a response.

    An event stream has no end to wait for. A TLS connection that is closed in order would stay half open for up to 30 s, until the
    server agrees, and a server that only writes would keep writing.
    """
    connection = response.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()
    response.close()


def notice_broken_http(response: aiohttp.ClientResponse) -> None:
    """Make a read fail when the peer breaks HTTP's own framing.

    On an HTTP chunk without a size, aiohttp (3.14) closes the connection but does not notify the reader, which would wait for ever.
    """
    connection = response.connection
    closed = None if connection is None or connection.protocol is None else connection.protocol.closed
    content = response.content

    def fail(closed: asyncio.Future[None]) -> None:
        closed.exception()  # the reader has the error too, and asyncio logs an exception that was never retrieved
        if not content.is_eof() and content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError("malformed HTTP chunk"))

    if closed is not None:
        closed.add_done_callback(fail)


def take_rest(content: aiohttp.StreamReader) -> bytes:
    """Return the bytes that came before the connection broke, which aiohttp keeps."""
    content.set_exception(None)  # type: ignore[arg-type]
    return content.read_nowait()
