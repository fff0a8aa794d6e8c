"""Additions to aiohttp's responses that reading an event stream needs."""

import asyncio

import aiohttp

ENDED = "the server ended the stream"


def leave(response: aiohttp.ClientResponse) -> None:
    """Abort a response.

    An event stream has no end to wait for. A TLS connection that is closed in order would stay half open for up to 30 s, until the
    server agrees, and a server that only writes would keep writing.
    """
    connection = response.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()
    response.close()


def take_rest(content: aiohttp.StreamReader) -> bytes:
    """Return the bytes that arrived before the connection broke: aiohttp keeps them, but raises the error instead of returning them."""
    content.set_exception(None)  # type: ignore[arg-type]
    return content.read_nowait()


def notice_broken_http(response: aiohttp.ClientResponse) -> None:
    """Make a read fail when the peer breaks HTTP's own framing.

    On an HTTP chunk without a size, aiohttp (3.14) closes the connection but does not notify the reader, who would wait for ever.
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
