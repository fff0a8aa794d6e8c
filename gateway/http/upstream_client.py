"""Requests to upstreams, without parts of aiohttp's client that a proxy does not need: cookies, redirects, defaults, a task per body.

aiohttp connects, pools connections and parses; here is only what lies between. This leans on internals of aiohttp (what a connector
wants of a request, and how its connections are handed a response's parser), which is why it stands alone in this module, is guarded by a
test that compares what is sent with what aiohttp's session sends, and why that session is asked whenever a request is not a plain one.
"""

import re
import ssl
from collections.abc import Callable, Iterable
from functools import cached_property

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.helpers import TimerNoop
from aiohttp.http import RawResponseMessage
from aiohttp.http_exceptions import LineTooLong
from aiohttp.http_writer import _serialize_headers
from aiohttp.streams import StreamReader
from multidict import CIMultiDict, CIMultiDictProxy, istr
from yarl import URL

from ..policy.target import url_of
from .asking import UpstreamAnswer
from .headers import head_bytes, max_head_bytes
from .upstream_connector import UpstreamConnector
from .upstream_errors import BadHead, HeadTooLarge

_PLAIN = re.compile(r"/[^\x00-\x20#\x7f]*")  # without spaces, controls and a fragment; other bytes beyond ASCII are sent unchanged
_WITHOUT_BODY = frozenset(("GET", "HEAD", "OPTIONS", "TRACE"))  # others announce an empty body (RFC 9110 section 8.6)
_IDEMPOTENT = _WITHOUT_BODY | {"PUT", "DELETE"}  # retried if a reused connection turns out to be closed (RFC 9112 section 9.3.1)
_LEAST_FINAL_STATUS = 200
_CONTENT_LENGTH, _HOST = istr("Content-Length"), istr("Host")
_NO_TIMER = TimerNoop()


class Answer:
    """An upstream's answer, before its body. It has the part of aiohttp's ClientResponse that the gateway uses."""

    __slots__ = ("_connection", "_protocol", "content", "headers", "reason", "status")

    def __init__(self, connection: Connection, protocol: ResponseHandler, head: RawResponseMessage, content: StreamReader) -> None:
        self._connection: Connection | None = connection
        self._protocol = protocol
        self.status: int = head.code
        self.reason: str = head.reason
        self.headers: CIMultiDictProxy[str] = head.headers
        self.content = content
        content.on_eof(self._release)

    def __repr__(self) -> str:
        return f"<Answer {self.status} {'open' if self._connection is not None else 'over'}>"

    def close(self) -> None:
        """Close the connection, unless the body has ended."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self.content.set_exception(aiohttp.ClientConnectionError("Connection closed"))
            connection.close()

    def _release(self) -> None:
        """Return the connection to the pool, unless it was upgraded to another protocol."""
        if self._connection is not None and not self._protocol.upgraded:
            self._connection.release()
            self._connection = None


class _Destination(aiohttp.ClientRequest):
    """A request that only names the host to connect to. It is never sent."""

    @cached_property
    def connection_key(self) -> ConnectionKey:  # cached, because aiohttp computes it for each request
        return super().connection_key


class _Place:
    """The values that all requests to one upstream share."""

    def __init__(self, upstream: str, tls: ssl.SSLContext | bool) -> None:
        url = URL(upstream, encoded=True)
        self.tls = tls
        self.prefix = url.raw_path.rstrip("/")
        self.host = url.host_port_subcomponent or ""
        self.destination = _Destination("GET", url, ssl=tls)


class UpstreamClient:
    """Sends requests to upstreams over the connections of `session`."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        assert session.connector is not None
        self._session = session
        self._connector = session.connector
        self._places: dict[str, _Place] = {}  # by the URL in the route

    def __repr__(self) -> str:
        return f"<UpstreamClient upstreams={len(self._places)}>"

    def stop_waiting(self) -> None:
        """Raise Drained in requests that wait for an upstream that is down."""
        if isinstance(self._connector, UpstreamConnector):
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
    ) -> UpstreamAnswer:
        """Send a request, and return the answer when its head has arrived.

        `data` and `tls` are as aiohttp's `data` and `ssl`. `fields` are sent unchanged, except that missing ones may be added to it.
        `on_connected` is called for each connection found, if the body is not streamed.

        Raises the exceptions of aiohttp's client, and ValueError for fields that cannot be sent.
        """
        if not isinstance(data, bytes | None) or not method.isalpha() or not _PLAIN.fullmatch(target) or self._session.closed:
            url = url_of(upstream, target)
            response = await self._session.request(method, url, headers=fields, data=data, allow_redirects=False, timeout=timeout, ssl=tls)
            self._check_head(response.status, response.raw_headers, response)
            return response
        place = self._places.get(upstream)
        if place is None or place.tls is not tls:  # changed by a reload
            place = self._places[upstream] = _Place(upstream, tls)
        wire = self._write(place, method, target, fields, data or b"")
        while (connection := await self._connector._get(place.destination.connection_key, [])) is not None:
            if on_connected is not None:
                on_connected()
            try:
                return await self._send(connection, place, method, wire, timeout)
            except aiohttp.ServerTimeoutError:
                raise
            except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
                if method not in _IDEMPOTENT:
                    raise  # the upstream may have processed it
        connection = await self._connect(place, timeout)
        if on_connected is not None:
            on_connected()
        return await self._send(connection, place, method, wire, timeout)

    def _write(self, place: _Place, method: str, target: str, fields: CIMultiDict[str], data: bytes) -> bytes:
        """Return the bytes of a request."""
        if _CONTENT_LENGTH not in fields and (data or method not in _WITHOUT_BODY):
            fields[_CONTENT_LENGTH] = str(len(data))
        if self._connector.force_close and "Connection" not in fields:
            fields["Connection"] = "close"
        host = "" if _HOST in fields else f"\r\nHost: {place.host}"  # `fields` has one if a rule of the route sets it
        return f"{method} {place.prefix}{target} HTTP/1.1{host}".encode("utf-8", "surrogateescape") + _serialize_headers("", fields) + data

    async def _connect(self, place: _Place, timeout: aiohttp.ClientTimeout) -> Connection:
        try:
            return await self._connector.connect(place.destination, [], timeout)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError(f"Connection timeout to host {place.destination.url}") from error

    async def _send(self, connection: Connection, place: _Place, method: str, wire: bytes, timeout: aiohttp.ClientTimeout) -> Answer:
        try:
            protocol = connection.protocol
            assert protocol is not None
            session = self._session
            protocol.set_response_params(
                timer=_NO_TIMER,
                skip_payload=method == "HEAD",
                read_until_eof=True,
                auto_decompress=False,
                read_timeout=timeout.sock_read,
                read_bufsize=session._read_bufsize,
                timeout_ceil_threshold=self._connector._timeout_ceil_threshold,
                max_line_size=session._max_line_size,
                max_field_size=session._max_field_size,
                max_headers=session._max_headers,
            )
            if protocol.transport is None or protocol.transport.is_closing():
                raise aiohttp.ServerDisconnectedError
            protocol.transport.write(wire)
            protocol.start_timeout()
            while True:
                head, content = await protocol.read()
                if not 100 <= head.code < 200 or head.code == 101:
                    self._check_head(head.code, head.raw_headers, connection)
                    return Answer(connection, protocol, head, content)
        except aiohttp.http.HttpProcessingError as error:
            connection.close()
            if isinstance(error.__cause__, LineTooLong):
                raise HeadTooLarge(session._max_field_size, "a line in the head of its answer") from error
            if error.message.startswith("Too many"):
                raise HeadTooLarge(max_head_bytes(session._max_field_size)) from error
            raise aiohttp.ClientResponseError(place.destination.request_info, (), status=error.code, message=error.message) from error
        except BaseException:
            connection.close()
            raise

    def _check_head(self, status: int, raw_headers: Iterable[tuple[bytes, bytes]], answer: Connection | aiohttp.ClientResponse) -> None:
        """Close the answer and raise HeadTooLarge if its head is too large, because the parser only counts fields.

        Raises BadHead for a status below 200: for 101, which was not requested (RFC 9110 section 7.8), and for one below 100.
        """
        max_bytes = max_head_bytes(self._session._max_field_size)
        if status < _LEAST_FINAL_STATUS:
            answer.close()
            raise BadHead(f"its answer has the status {status:03}, which is not that of a final answer")
        if head_bytes(raw_headers) > max_bytes:
            answer.close()
            raise HeadTooLarge(max_bytes)
