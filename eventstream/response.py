"""What reading an event stream needs of aiohttp's responses beyond what they do by themselves."""

import asyncio

import aiohttp

ENDED = "the server ended the stream"


def leave(response: aiohttp.ClientResponse) -> None:
    """Break off a response.

    An event stream has no end to wait for. Closing a TLS connection in order would leave it half open for up to 30 s, until the server
    agrees, and a server that only writes would write on.
    """
    connection = response.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()
    response.close()


def take_rest(content: aiohttp.StreamReader) -> bytes:
    """Gives what came before the connection broke: aiohttp keeps it, but from then on raises the error instead of giving it."""
    content.set_exception(None)  # type: ignore[arg-type]
    return content.read_nowait()


def notice_broken_http(response: aiohttp.ClientResponse) -> None:
    """Makes a read fail when the peer breaks off in the middle of HTTP's own framing.

    aiohttp (3.14) closes the connection on an HTTP chunk without a size, but tells the reader nothing, who would wait for ever.
    """
    connection = response.connection
    closed = None if connection is None or connection.protocol is None else connection.protocol.closed
    content = response.content

    def fail(closed: asyncio.Future[None]) -> None:
        closed.exception()  # has told the reader as well, but asyncio complains of one that nobody asked for
        if not content.is_eof() and content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError("malformed HTTP chunk"))

    if closed is not None:
        closed.add_done_callback(fail)
