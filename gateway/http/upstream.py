"""Sessions for connections to upstreams, and the fast path for an answer's body."""

import asyncio
import functools
from collections.abc import Callable
from typing import Any

import aiohttp
from aiohttp.streams import StreamReader

from eventstream.request import send_once

from . import asking, pump
from .asking import UpstreamAnswer
from .headers import head_limits, max_head_bytes
from .read_buffer import ReadBuffer
from .received_body import take_buffer
from .receiver import CLOSED_EARLY, Receiver
from .tls_connector import TlsConnector
from .upstream_client import Answer, UpstreamClient
from .upstream_connector import UpstreamConnector
from .upstream_protocol import UpstreamProtocol


def attach(response: Answer | aiohttp.ClientResponse, receiver: Receiver) -> bool:
    """Send the body of `response` to `receiver`, now and in the calls that read it.

    Return False if the response is not built as expected. Then the caller must read the body.
    """
    content = response.content
    protocol = response._protocol  # `response.connection` is None after the end of the body
    if not isinstance(protocol, UpstreamProtocol):
        return False
    lost = content.exception() or protocol.lost
    if content.is_eof() or lost is not None or protocol.transport is None:  # it has already ended
        received = take_buffer(content)
        if received:
            receiver.feed(received)
        if content.is_eof() and lost is None:
            receiver.upstream_ended()
        else:
            receiver.upstream_lost(f"connection lost: {lost}" if lost else CLOSED_EARLY)
        return True
    if type(content) is not StreamReader:
        return False
    protocol.attach(content, receiver)
    return True


def attach_or_pump(response: UpstreamAnswer, receiver: Receiver) -> None:
    """Send the body of `response` to `receiver`, by a task if it is not built as expected."""
    if not isinstance(response, Answer | aiohttp.ClientResponse) or not attach(response, receiver):
        pump.attach(response, receiver)


def open_client(session: aiohttp.ClientSession) -> asking.UpstreamClient:
    """Return what asks upstreams over a session of `open_session`."""
    return UpstreamClient(session)


def count_connections(session: aiohttp.ClientSession) -> int:
    """Return how many connections a session has, kept ones included."""
    connector = session.connector
    assert connector is not None
    return len(connector._acquired) + sum(map(len, connector._conns.values()))


def open_session(
    *, keepalive_seconds: float, max_header_bytes: int, unix_path: str = "", note_latency: Callable[[float], object] | None = None
) -> aiohttp.ClientSession:
    """Return the gateway's client session: without cookies, decoding, a limit on connections, or default timeouts.

    With `unix_path` it connects to that socket, whatever the URL. `note_latency` is called with the seconds of each timed read.
    """
    pooling: dict[str, Any] = {"keepalive_timeout": keepalive_seconds} if keepalive_seconds else {"force_close": True}
    make_protocol = _protocol_factory(ReadBuffer(note_latency), max_header_bytes)
    connector: aiohttp.BaseConnector
    if unix_path:
        connector = aiohttp.UnixConnector(unix_path, limit=0, **pooling)
        connector._factory = make_protocol  # type: ignore[assignment]
    else:
        connector = UpstreamConnector(make_protocol, **pooling)
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        timeout=aiohttp.ClientTimeout(total=None),
        **head_limits(max_header_bytes),
    )


def open_following_session(*, max_header_bytes: int) -> aiohttp.ClientSession:
    """Return the session for shared streams: one request per connection, without automatic retries."""
    return aiohttp.ClientSession(
        connector=TlsConnector(_protocol_factory(ReadBuffer(), max_header_bytes), force_close=True),
        middlewares=(send_once,),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "gateway"},
        **head_limits(max_header_bytes),
    )


def _protocol_factory(buffer: ReadBuffer, max_header_bytes: int) -> Callable[[], UpstreamProtocol]:
    return functools.partial(UpstreamProtocol, asyncio.get_running_loop(), buffer, max_head_bytes(max_header_bytes))
