"""Request an event stream over HTTP and judge the answer (HTML standard 9.2.2, Fetch standard 4.4)."""

import email.utils
import io
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from ssl import SSLContext
from typing import Any, TypeAlias

import aiohttp
from aiohttp import AddrInfoType
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict
from yarl import URL

from .decoding import READABLE, is_readable
from .errors import ConnectionFailed
from .tls import describe_tls, find_tls_error

NETWORK_ERRORS = (aiohttp.ClientError, HttpProcessingError, OSError)
"""The exceptions that aiohttp raises when the network or the peer's HTTP is at fault, timeouts among them."""

_READ_AHEAD_BYTES = 64 * 1024  # aiohttp pauses the socket at twice this; enough for full speed, small enough for back-pressure
MOST_REDIRECTS = 20  # Fetch standard 4.4 step 7
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))
REDIRECTS = {301, 302, 303, 307, 308}
_TOO_MANY_REQUESTS = 429
_LONGEST_RETRY_AFTER_SECONDS = 86_400.0  # a server that asks for more than a day made a typing error
_CREDENTIALS = ("Authorization", "Cookie", "Proxy-Authorization", "Host")  # Host is no credential, but must not reach another origin either
_FOR_ANY_ORIGIN = {"accept", "accept-encoding", "accept-language", "cache-control", "content-language", "content-type"}
"""The fields that are sent to another origin too. All others may be secrets, or mean something to the first origin alone."""
BODY_HEADERS = ("Content-Encoding", "Content-Language", "Content-Location", "Content-Type", "Content-Length")
Headers: TypeAlias = Mapping[str, str] | Callable[[], Mapping[str, str]]
"""The header fields of a request, or a function that returns them for each attempt."""

_URI = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")  # RFC 3986 2
_FORBIDDEN_IN_HEADER = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class Unavailable(Exception):
    """No event stream this time, but a later attempt may succeed: a network error, a 5xx, a 429.

    `retry_after_seconds` is the least delay, 0 when the server named none; `status` is None when there was no answer.
    """

    def __init__(self, reason: str, retry_after_seconds: float = 0.0, status: int | None = None) -> None:
        super().__init__(reason)
        self.retry_after_seconds = retry_after_seconds
        self.status = status


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """A request, the same for every reconnection except for `Last-Event-ID`."""

    url: URL
    method: str
    headers: CIMultiDict[str]
    body: bytes | None
    give_headers: Callable[[], Mapping[str, str]] | None = None
    """A function that returns further headers for each attempt."""
    cross_origin_redirects: bool = True
    """Whether redirects to other origins are followed."""
    tls: SSLContext | bool = True
    """What aiohttp takes as `ssl`, for the URL's own origin."""

    @classmethod
    def build(
        cls,
        url: str | URL,
        method: str,
        headers: Headers | None,
        body: bytes | str | None,
        *,
        cross_origin_redirects: bool = True,
        tls: SSLContext | bool = True,
    ) -> "StreamRequest":
        """Build a request, with the headers of the standard unless `headers` has them. Raises ValueError for what HTTP cannot carry."""
        try:
            target = url if isinstance(url, URL) else parse_url(url)
        except ValueError as error:
            raise ValueError(f"url {url!r}: {error}") from error
        merged = CIMultiDict({"Accept": "text/event-stream", "Cache-Control": "no-cache", "Accept-Encoding": "identity"})
        if body is not None:
            merged["Content-Type"] = "text/plain"
        give_headers = headers if callable(headers) else None
        merged.update({} if headers is None or callable(headers) else headers)
        for name, value in merged.items():
            refuse_control_characters(name, value)
        if "Last-Event-ID" in merged:
            raise ValueError("the event source sets the header Last-Event-ID itself; pass the first one as last_event_id")
        encoded = body.encode() if isinstance(body, str) else body
        return cls(target, method.upper(), merged, encoded, give_headers, cross_origin_redirects, tls)

    async def open(
        self, session: aiohttp.ClientSession, last_event_id: str, timeout: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse | None:
        """Return the response whose body is the event stream, after any redirects; None for 204, which ends the reconnecting.

        The caller closes it. Raises Unavailable when a later attempt may succeed, ConnectionFailed when none will.
        """
        asked = self
        if self.give_headers is not None:
            headers = self.headers.copy()
            headers.update(self.give_headers())
            asked = replace(self, headers=headers)
        for _ in range(MOST_REDIRECTS + 1):
            response = await asked._send(session, last_event_id, timeout)
            if response.status not in REDIRECTS:
                return _judge(asked.shown_url, response)
            response.close()
            asked = asked._redirected(response, session)
        raise ConnectionFailed(self.shown_url, f"more than {MOST_REDIRECTS} redirects", status=response.status)

    async def _send(self, session: aiohttp.ClientSession, last_event_id: str, timeout: aiohttp.ClientTimeout) -> aiohttp.ClientResponse:
        headers = self.headers.copy()
        if last_event_id:
            headers["Last-Event-ID"] = last_event_id  # aiohttp writes headers as UTF-8, as the standard requires
        try:
            return await session.request(
                self.method,
                self.url,
                headers=headers,
                data=None if self.body is None else io.BytesIO(self.body),  # aiohttp warns about plain bytes of more than 1 MiB
                timeout=timeout,
                allow_redirects=False,  # aiohttp takes a redirect without Location for an answer, and keeps Cookie across origins
                auto_decompress=False,  # `Body` decodes what servers compress against the request's Accept-Encoding, and bounds it
                raise_for_status=False,
                read_bufsize=_READ_AHEAD_BYTES,
                ssl=self.tls,
            )
        except (aiohttp.ClientConnectionError, OSError) as error:  # before ValueError, which certificate errors are as well
            if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
                _forget_address(session, self.url)
            raise Unavailable(describe(error, timeout)) from error
        except ValueError as error:  # a last event ID with control characters, an invalid host name
            raise ConnectionFailed(self.shown_url, f"the request cannot be sent: {error}") from error
        except aiohttp.ClientError as error:
            raise Unavailable(describe(error, timeout)) from error

    def _redirected(self, response: aiohttp.ClientResponse, session: aiohttp.ClientSession) -> "StreamRequest":
        """Return the request that a redirect asks for (Fetch standard 4.4, HTTP-redirect fetch)."""
        status = response.status
        location = response.headers.get("Location", "").strip()
        if not location:
            raise ConnectionFailed(self.shown_url, f"redirect {status} without a Location", status=status)
        try:
            url = parse_url(location, self.url)
        except ValueError as error:
            raise ConnectionFailed(self.shown_url, f"redirect {status} to {location!r}: {error}", status=status) from error
        headers, tls = self.headers.copy(), self.tls
        if url.origin() != self.url.origin():
            tls = True
            if not self.cross_origin_redirects:
                raise ConnectionFailed(self.shown_url, f"redirect {status} to another origin, which is not followed", status=status)
            if any(name in session.headers for name in _CREDENTIALS):
                # A request cannot remove headers that its session adds, and another origin must not get them.
                raise ConnectionFailed(
                    self.shown_url, f"redirect {status} would send the session's credentials to {url.host}", status=status
                )
            headers = CIMultiDict((name, value) for name, value in headers.items() if name.lower() in _FOR_ANY_ORIGIN)
        if becomes_get(status, self.method):
            for name in BODY_HEADERS:
                headers.popall(name, None)
            return replace(self, url=url, method="GET", headers=headers, body=None, tls=tls)
        return replace(self, url=url, headers=headers, tls=tls)

    @property
    def shown_url(self) -> str:
        """The URL without user name and password, for messages."""
        return str(self.url.with_user(None))


def becomes_get(status: int, method: str) -> bool:
    """Whether a redirect turns a request into a GET without a body (Fetch standard 4.4 step 12)."""
    return (status in (301, 302) and method == "POST") or (status == 303 and method not in ("GET", "HEAD"))


def parse_url(text: str, base: URL | None = None) -> URL:
    """Parse a URL, relative to `base` if given. Raises ValueError when it is not an http or https URL with a host.

    A valid URL stays unchanged, because it may be signed. In any other, characters are quoted.
    """
    url = URL(text, encoded=_URI.fullmatch(text) is not None)
    if base is not None:
        if not url.absolute and url.raw_path and not url.raw_path.startswith("/"):
            folder = base.raw_path.rpartition("/")[0]  # yarl would decode it
            url = url.with_path(f"{folder}/{url.raw_path}", encoded=True, keep_query=True, keep_fragment=True)
        url = base.with_path(base.raw_path.removesuffix("?"), encoded=True, keep_query=True).join(url)
    if url.scheme not in ("http", "https") or not url.host or url.port is None:  # reading the port validates it
        raise ValueError("must begin with http:// or https:// and name a host")
    return keep_mark(text, url)


def keep_mark(text: str, url: URL) -> URL:
    """Return `url`, which was parsed from `text`, with its final `?` when no query follows it. Servers may distinguish that from no `?`,
    but yarl drops it unless it is part of the path."""
    if not text.endswith("?") or url.raw_query_string or url.raw_fragment:
        return url
    return url.with_path(url.raw_path + "?", encoded=True)


def _judge(url: str, response: aiohttp.ClientResponse) -> aiohttp.ClientResponse | None:
    status = response.status
    content_type = response.headers.get("Content-Type", "")
    encoding = ", ".join(response.headers.getall("Content-Encoding", ())).strip().lower()
    readable = is_readable(encoding)
    if status == 200 and content_type.partition(";")[0].strip().lower() == "text/event-stream" and readable:
        return response
    response.close()
    if status == 204:
        return None
    # 429 is the only 4xx that means "later": a client that gave up on it would never return to a server that recovers.
    if status >= 500 or status == _TOO_MANY_REQUESTS:
        raise Unavailable(f"{url}: the server answered {status}", _retry_after(status, response.headers.get("Retry-After", "")), status)
    if status != 200:
        reason = f"status must be 200 for an event stream, got {status}"
    elif readable:
        reason = f"content type must be 'text/event-stream', got {content_type!r}"
    else:
        reason = f"content encoding must be one of {', '.join(map(repr, READABLE))}, got {encoding!r}"
    raise ConnectionFailed(url, reason, status=status, content_type=content_type)


def _retry_after(status: int, value: str) -> float:
    """Return the seconds that `Retry-After` asks for, as a number or a date (RFC 9110 10.2.3); 0 if it is neither."""
    if status not in (503, _TOO_MANY_REQUESTS):
        return 0.0
    if re.fullmatch("[0-9]+", value):
        return min(float(value), _LONGEST_RETRY_AFTER_SECONDS)
    try:
        date = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    seconds = (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER_SECONDS)


def refuse_control_characters(header: str, value: str) -> None:
    """Raise ValueError for characters that would end the header early or cannot be sent."""
    if _FORBIDDEN_IN_HEADER.search(header + value):
        raise ValueError(f"header {header!r} must not contain a control character: {value!r}")
    (header + value).encode()  # a lone surrogate: UnicodeEncodeError, a ValueError


def open_session(max_connections: int = 100, **options: Any) -> aiohttp.ClientSession:
    """Return a session in which each attempt is one request on a new connection. `max_connections` 0 means no limit.

    TCP keep-alive detects hosts that vanished within about 90 s. `options` are those of `aiohttp.ClientSession`. aiohttp repeats an
    idempotent request at once when the server hangs up, because kept-alive connections go stale. Here there are none, and a failing
    server would get twice the requests that the back-off allows.
    """
    connector = aiohttp.TCPConnector(limit=max_connections, force_close=True, socket_factory=open_socket)
    return aiohttp.ClientSession(connector=connector, middlewares=(send_once,), **options)


def _forget_address(session: aiohttp.ClientSession, url: URL) -> None:
    """Drop the cached address of the host: it may have changed."""
    if isinstance(session.connector, aiohttp.TCPConnector) and url.raw_host is not None and url.port is not None:
        session.connector.clear_dns_cache(url.raw_host, url.port)


def open_socket(address: AddrInfoType) -> socket.socket:
    """Return a socket with TCP keep-alive, which detects a vanished host within about 90 s."""
    family, kind, protocol, *_ = address
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    return sock


async def send_once(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keep aiohttp's client from repeating a request at once when the server hangs up without an answer (a middleware)."""
    try:
        return await send(request)
    except (aiohttp.ClientConnectorError, aiohttp.ServerTimeoutError):
        raise  # never repeated
    except aiohttp.ClientConnectionError as error:
        raise aiohttp.ClientConnectionError(str(error)) from error  # aiohttp does not repeat after this class


def describe(error: Exception, timeout: aiohttp.ClientTimeout) -> str:
    """Return a network error in words."""
    if isinstance(error, aiohttp.SocketTimeoutError):
        return f"no byte arrived for {timeout.sock_read} s"
    if (tls_error := find_tls_error(error)) is not None:
        return describe_tls(tls_error)
    return str(error) or type(error).__name__
