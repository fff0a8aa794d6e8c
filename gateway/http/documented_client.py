"""Ask upstreams by aiohttp's documented client: one connection for each request."""

import asyncio
import copy
import functools
import ssl
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, cast

import aiohttp
from aiohttp.http_exceptions import LineTooLong
from multidict import CIMultiDict

from eventstream.request import open_socket, send_once
from eventstream.response import notice_broken_http

from ..policy.target import url_of
from .asking import UpstreamClient
from .headers import head_limits, max_head_bytes
from .read_buffer import ReadBuffer
from .retrying_connector import RetryingConnector, timeout_of
from .tls_transport import TlsTransport
from .upstream_errors import HeadTooLarge
from .upstream_link import DocumentedAnswer, UpstreamLink, take_over

_READ_AHEAD_BYTES = 16 * 1024  # aiohttp pauses the connection at twice this


@dataclass(slots=True)
class _Asking:
    """A request of `DocumentedClient` that is being sent."""

    on_connected: Callable[[], None] | None
    link: UpstreamLink | None = None


_asking: ContextVar[_Asking | None] = ContextVar("_asking", default=None)


class _Linking(aiohttp.BaseConnector):
    """A connector that puts an `UpstreamLink` into each connection, and the gateway's TLS in place of the event loop's."""

    def __init__(self, *args: Any, max_header_bytes: int, **options: Any) -> None:
        super().__init__(*args, limit=0, force_close=True, **options)
        self.max_header_bytes = max_header_bytes
        self.links = 0
        """Number of connections."""
        self._reads = ReadBuffer()

    async def _create_connection(self, req: aiohttp.ClientRequest, *args: Any, **options: Any) -> Any:
        is_secure = req.url.scheme == "https"
        plain = _without_tls(req) if is_secure else req
        protocol = await super()._create_connection(plain, *args, **options)
        transport = protocol.transport
        if transport is None:
            return protocol  # it is lost already
        link = UpstreamLink(protocol, self._reads, self.max_header_bytes, self._count_link)
        if is_secure:
            tls = TlsTransport(link, _context_of(req), req.server_hostname or (req.url.raw_host or "").rstrip("."))
            take_over(transport, tls)
            tls.connection_made(transport)
            async with asyncio.timeout(timeout_of(*args, *options.values()).sock_connect):
                await tls.shake_hands(req.connection_key)
        else:
            link.read_bounded(transport)
        asking = _asking.get()
        if asking is not None:
            asking.link = link
            if asking.on_connected is not None:
                asking.on_connected()
        return protocol

    def _count_link(self, change: int) -> None:
        self.links += change


class _TcpConnector(_Linking, RetryingConnector):
    """A connector to hosts."""


class _UnixConnector(_Linking, aiohttp.UnixConnector):
    """A connector to a Unix socket."""


def _without_tls(req: aiohttp.ClientRequest) -> aiohttp.ClientRequest:
    plain = copy.copy(req)
    plain.url = req.url.with_scheme("http").with_port(req.url.port)
    return plain


def _context_of(req: aiohttp.ClientRequest) -> ssl.SSLContext:
    return req.ssl if isinstance(req.ssl, ssl.SSLContext) else _default_context()


@functools.cache
def _default_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def open_session(
    *, keepalive_seconds: float, max_header_bytes: int, unix_path: str = "", note_latency: Callable[[float], object] | None = None
) -> aiohttp.ClientSession:
    """Return the gateway's client session. It times no read, and keeps no connection, which may hold unsolicited bytes."""
    return _open(
        max_header_bytes,
        unix_path,
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        timeout=aiohttp.ClientTimeout(total=None),
    )


def open_following_session(*, max_header_bytes: int) -> aiohttp.ClientSession:
    """Return the session for shared streams."""
    return _open(max_header_bytes, headers={"User-Agent": "gateway"})


def _open(max_header_bytes: int, unix_path: str = "", **options: Any) -> aiohttp.ClientSession:
    connector: aiohttp.BaseConnector
    if unix_path:
        connector = _UnixConnector(unix_path, max_header_bytes=max_header_bytes)
    else:
        connector = _TcpConnector(socket_factory=open_socket, max_header_bytes=max_header_bytes)
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        middlewares=(send_once,),
        read_bufsize=_READ_AHEAD_BYTES,
        **head_limits(max_header_bytes),
        **options,
    )


def count_connections(session: aiohttp.ClientSession) -> int:
    """Return how many connections a session has."""
    return session.connector.links if isinstance(session.connector, _Linking) else 0


def open_client(session: aiohttp.ClientSession) -> UpstreamClient:
    """Return what asks upstreams over a session of `open_session`."""
    return DocumentedClient(session)


class DocumentedClient:
    """Asks upstreams over the connections of `session`."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._connector = cast(_Linking, session.connector)

    def __repr__(self) -> str:
        return f"<DocumentedClient {self._connector}>"

    def stop_waiting(self) -> None:
        """Raise Drained in requests that wait for an upstream that is down."""
        if isinstance(self._connector, RetryingConnector):
            self._connector.stop_waiting()

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
    ) -> DocumentedAnswer:
        """Return the answer when its head is here; see `UpstreamClient`."""
        asking = _Asking(on_connected)
        token = _asking.set(asking)
        try:
            response = await self._session.request(
                method, url_of(upstream, target), headers=fields, data=data, allow_redirects=False, timeout=timeout, ssl=tls
            )
        except aiohttp.ClientResponseError as error:
            raise self._find_limit(error) or error from error.__cause__
        finally:
            _asking.reset(token)
        notice_broken_http(response)
        return DocumentedAnswer(response, asking.link)

    def _find_limit(self, error: aiohttp.ClientResponseError) -> HeadTooLarge | None:
        """Return what says that a head was too large for aiohttp's parser, None if it is otherwise malformed."""
        parsing = error.__cause__
        if isinstance(parsing, LineTooLong) or (parsing is not None and isinstance(parsing.__cause__, LineTooLong)):
            return HeadTooLarge(self._connector.max_header_bytes, "a line in the head of its answer")
        if error.message.startswith("Too many"):
            return HeadTooLarge(max_head_bytes(self._connector.max_header_bytes))
        return None
