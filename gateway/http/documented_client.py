"""Ask upstreams by aiohttp's documented client: one connection for each request, and aiohttp's own TLS."""

import asyncio
import re
import socket
import ssl
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp.http_exceptions import LineTooLong
from multidict import CIMultiDict

from eventstream.request import open_socket, send_once

from ..policy.target import url_of
from .headers import head_bytes, head_limits, max_head_bytes
from .upstream_errors import BadHead, Drained, HeadTooLarge

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.05, 0.5
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_LEAST_FINAL_STATUS = 200


@dataclass(frozen=True, slots=True)
class _Session:
    sockets: "weakref.WeakSet[socket.socket]"
    max_header_bytes: int


_sessions: "weakref.WeakKeyDictionary[aiohttp.ClientSession, _Session]" = weakref.WeakKeyDictionary()


def open_session(*, max_header_bytes: int, unix_path: str = "", **options: Any) -> aiohttp.ClientSession:
    """Return a session without cookies, decoding, limit of connections, kept connections, or time limits of its own.

    A kept connection may hold unsolicited bytes, and the documented interface does not tell. With `unix_path` it connects to
    that socket. `options` go to aiohttp.
    """
    sockets = weakref.WeakSet[socket.socket]()

    def open_counted(address: aiohttp.AddrInfoType) -> socket.socket:
        sock = open_socket(address)
        sockets.add(sock)
        return sock

    connector: aiohttp.BaseConnector
    if unix_path:
        connector = aiohttp.UnixConnector(unix_path, limit=0, force_close=True)
    else:
        connector = aiohttp.TCPConnector(limit=0, force_close=True, socket_factory=open_counted)
    tracing = aiohttp.TraceConfig()
    tracing.on_connection_create_end.append(_note_connected)
    session = aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        middlewares=(send_once,),
        trace_configs=[tracing],
        **head_limits(max_header_bytes),
        **options,
    )
    _sessions[session] = _Session(sockets, max_header_bytes)
    return session


async def _note_connected(_: aiohttp.ClientSession, context: Any, __: object) -> None:
    on_connected = context.trace_request_ctx
    if on_connected is not None:
        on_connected()


def count_connections(session: aiohttp.ClientSession) -> int:
    """Return how many connections a session has."""
    return sum(1 for sock in _sessions[session].sockets if sock.fileno() >= 0)


class DocumentedClient:
    """Asks upstreams over the connections of `session`. A connection that is refused is tried again within `timeout.connect` seconds."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._max_header_bytes = _sessions[session].max_header_bytes
        self._draining = asyncio.Event()

    def __repr__(self) -> str:
        return f"<DocumentedClient{' draining' if self._draining.is_set() else ''}>"

    def stop_waiting(self) -> None:
        """Raise Drained in requests that wait for an upstream which is down."""
        self._draining.set()

    async def ask(
        self,
        method: str,
        upstream: str,
        target: str,
        *,
        fields: CIMultiDict[str],
        data: object,
        timeout: aiohttp.ClientTimeout,
        on_connected: Callable[[], None] | None = None,
        tls: ssl.SSLContext | bool = True,
    ) -> aiohttp.ClientResponse:
        """Return the answer when its head is here; see `UpstreamClient`."""
        url = url_of(upstream, target)
        loop = asyncio.get_running_loop()
        end = loop.time() + (timeout.connect or 0.0)
        pause_seconds = _FIRST_PAUSE_SECONDS
        while True:
            try:
                response = await self._session.request(
                    method, url, headers=fields, data=data, allow_redirects=False, timeout=timeout, ssl=tls, trace_request_ctx=on_connected
                )
                self._check_head(response)
                return response
            except aiohttp.ClientSSLError:
                raise  # trying again does not mend a certificate
            except aiohttp.ClientConnectorError:
                self._forget_address(url.raw_host, url.port)
                if loop.time() >= end:
                    raise
            except aiohttp.ClientResponseError as error:
                if (too_large := self._find_limit(error)) is None:
                    raise
                raise too_large from error
            await self._pause(min(pause_seconds, end - loop.time()))
            pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)

    async def _pause(self, seconds: float) -> None:
        """Wait for the next attempt. Raises Drained when the gateway shuts down."""
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._draining.wait()
        except TimeoutError:
            return
        raise Drained

    def _forget_address(self, host: str | None, port: int | None) -> None:
        """Resolve the host anew next time: its address may have changed."""
        if isinstance(self._session.connector, aiohttp.TCPConnector) and host is not None and port is not None:
            self._session.connector.clear_dns_cache(host, port)

    def _find_limit(self, error: aiohttp.ClientResponseError) -> HeadTooLarge | None:
        """Return what says that a head was too large for aiohttp's parser, None if it is otherwise malformed."""
        parsing = error.__cause__
        if isinstance(parsing, LineTooLong) or (parsing is not None and isinstance(parsing.__cause__, LineTooLong)):
            return HeadTooLarge(self._max_header_bytes, "a line in the head of its answer")
        if error.message.startswith("Too many"):
            return HeadTooLarge(max_head_bytes(self._max_header_bytes))
        return None

    def _check_head(self, response: aiohttp.ClientResponse) -> None:
        """Close the answer and raise BadHead for 101, which was not asked for (RFC 9110 section 7.8), for a status below 100, for control
        characters, and for a head that is too large."""
        fields = response.raw_headers
        error: BadHead | None = None
        if response.status < _LEAST_FINAL_STATUS:
            error = BadHead(f"its answer has the status {response.status:03}, which is not that of a final answer")
        elif any(_CONTROL.search(part) for field in fields for part in field) or _CONTROL.search((response.reason or "").encode()):
            error = BadHead("its answer is not HTTP: its head has a control character")
        elif head_bytes(fields) > max_head_bytes(self._max_header_bytes):
            error = HeadTooLarge(max_head_bytes(self._max_header_bytes))
        if error is not None:
            response.close()
            raise error
