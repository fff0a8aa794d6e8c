"""Request a stream and record its bytes with their times of arrival."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from eventstream import BlockTooLarge, DecodedTooLarge, Framer, Undecodable
from eventstream.decoding import find_decoder
from eventstream.request import BODY_HEADERS, MOST_REDIRECTS, REDIRECTS, becomes_get, parse_url, send_once
from gateway.http.paths import attach, open_session
from gateway.http.receiver import Source

from .observation import Arrival, Ending, Head, Observation
from .quoting import HARMLESS, shown_url

T = TypeVar("T")

_MAX_RECORDED_BYTES = 4 * 1024 * 1024
"""Bytes recorded at most, except for the rest of a large block: this much is enough to judge."""
_LARGE_BLOCK_BYTES = 1024 * 1024
_MAX_HEADER_BYTES = 64 * 1024
_CONNECT_SECONDS = 10.0


class CannotConnect(Exception):
    """No connection: no such host, refused, or TLS failed. `url` is without secrets; `reason` is the network's message."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(url, reason)
        self.url = url
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Request:
    """The request to send."""

    url: URL
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None

    def with_field(self, name: str, value: str) -> "Request":
        """Return the same request with one header field, replacing all of that name."""
        return self.without_field(name).with_fields([(name, value)])

    def without_field(self, name: str) -> "Request":
        """Return the same request without header fields of that name."""
        return replace(self, headers=tuple(field for field in self.headers if field[0].lower() != name.lower()))

    def with_fields(self, fields: Iterable[tuple[str, str]]) -> "Request":
        """Return the same request with further header fields."""
        return replace(self, headers=(*self.headers, *fields))

    def redirected(self, status: int, url: URL) -> "Request":
        """Return the request that a redirect calls for. Another origin gets no field that may hold a credential."""
        same = url.origin() == self.url.origin()
        headers = tuple(field for field in self.headers if same or field[0].lower() in HARMLESS)
        if becomes_get(status, self.method):
            return Request(url, "GET", tuple(field for field in headers if field[0].title() not in BODY_HEADERS))
        return replace(self, url=url, headers=headers)


class _NoAnswer(Exception):
    """Connected, but the server sent no valid answer."""


class Recording:
    """Record what arrives, as the receiver of an upstream."""

    def __init__(self) -> None:
        self.paused = False
        self.bytes_out = 0  # it writes none
        self._source: Source | None = None
        self.arrivals: list[Arrival] = []
        self.size = 0
        self.ending: Ending = "open"
        self.ended_seconds = 0.0
        self.failure = ""
        self.over = asyncio.Event()
        self.heard = False
        """Whether listening is over, so that the connection's end is our own doing."""
        self.wanted_bytes = _MAX_RECORDED_BYTES
        """Number of bytes after which listening stops."""
        self._framer: Framer | None = Framer()
        self._now = asyncio.get_running_loop().time

    def attached(self, source: Source) -> None:
        """Take the connection whose bytes follow."""
        self._source = source

    def feed(self, chunk: bytes) -> None:
        """Record bytes of the body."""
        if self.heard:
            return
        self.arrivals.append(Arrival(self._now(), chunk))
        self.size += len(chunk)
        if self._framer is not None:
            try:
                self._framer.feed(chunk)
            except BlockTooLarge:
                self._framer = None
        if self.size >= self.wanted_bytes and (self._framer is None or self._framer.pending_bytes < _LARGE_BLOCK_BYTES):
            self.over.set()

    def upstream_ended(self) -> None:
        """Record that the answer is complete."""
        self._end("complete", "")

    def upstream_lost(self, reason: str) -> None:
        """Record that the connection ended before the answer."""
        lost = self._source.lost if self._source is not None else None
        self._end("reset" if isinstance(lost, OSError) else "cut", reason)

    def _end(self, ending: Ending, failure: str) -> None:
        if not self.heard:
            self.ending, self.failure, self.ended_seconds = ending, failure, self._now()
            self.over.set()


Watcher = Callable[[Recording], None]


async def listen(
    request: Request,
    seconds: float,
    enough: asyncio.Event,
    watch: Watcher | None = None,
    stop_after: Callable[[Head], bool] | None = None,
) -> Observation:
    """Send a request and listen until the answer ends, `seconds` have passed, or `enough` is set.

    `watch` gets the recording when the head has arrived. If `stop_after` returns True for the head, the body is not awaited.
    Raises CannotConnect if no connection is possible.
    """
    loop = asyncio.get_running_loop()
    asked = loop.time()
    deadline = asked + seconds
    redirects: list[str] = []
    async with open_session(keepalive_seconds=0, max_header_bytes=_MAX_HEADER_BYTES) as session:
        try:
            response = await _before(deadline, enough, _send_redirected(session, request, redirects))
        except _NoAnswer as error:
            return Observation(asked, ending="cut", ended_seconds=loop.time(), failure=str(error), redirects=tuple(redirects))
        if response is None:
            return Observation(asked, ended_seconds=loop.time(), redirects=tuple(redirects))
        head = _head_of(response, loop.time())
        recording = Recording()
        try:
            if type(response.content) is aiohttp.StreamReader:
                attach(response, recording)
            else:
                recording.feed(await response.read())  # this answer cannot have a body
                recording.upstream_ended()
            if watch is not None:
                watch(recording)
            if stop_after is None or not stop_after(head):
                await _before(deadline, enough, recording.over.wait())
        finally:
            recording.heard = True
            response.close()
        return _observation(asked, head, recording, tuple(redirects))


async def _before(deadline: float, enough: asyncio.Event, waiting: Coroutine[None, None, T]) -> T | None:
    """Return the result of `waiting`; cancel it and return None if the deadline passes or `enough` is set first."""
    loop = asyncio.get_running_loop()
    task, stop = loop.create_task(waiting), loop.create_task(enough.wait())
    try:
        await asyncio.wait((task, stop), timeout=max(0.0, deadline - loop.time()), return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        task.cancel()
        stop.cancel()
        await asyncio.gather(task, stop, return_exceptions=True)


def _observation(asked: float, head: Head, recording: Recording, redirects: tuple[str, ...]) -> Observation:
    body, failure = _decode(head, recording.arrivals)
    return Observation(
        asked,
        head,
        body,
        recording.ending,
        recording.ended_seconds or asyncio.get_running_loop().time(),
        failure or recording.failure,
        undecodable=bool(failure),
        wire_bytes=recording.size,
        redirects=redirects,
    )


def _decode(head: Head, arrivals: list[Arrival]) -> tuple[tuple[Arrival, ...], str]:
    """Return the arrivals without content coding, and the reason if decoding failed, else an empty string."""
    arrivals = [arrival for arrival in arrivals if arrival.data]
    if not head.coding():
        return tuple(arrivals), ""
    decoder = find_decoder(head.coding())
    if decoder is None:
        return (), "this content coding is not supported"
    decoded: list[Arrival] = []
    try:
        for arrival in arrivals:
            decoded.extend(
                Arrival(arrival.seconds, part) for part in decoder.decode(arrival.data) if part
            )  # `+=` would lose parts before an error
    except (Undecodable, DecodedTooLarge) as error:
        return tuple(decoded), str(error)
    return tuple(decoded), ""


async def _send_redirected(session: aiohttp.ClientSession, request: Request, redirects: list[str]) -> aiohttp.ClientResponse:
    """Return the answer after all redirects, which are appended to `redirects`."""
    while True:
        response = await _send(session, request)
        location = response.headers.get("Location", "").strip()
        if response.status not in REDIRECTS or not location or len(redirects) == MOST_REDIRECTS:
            return response
        response.close()
        try:
            url = parse_url(location, request.url)
        except ValueError:
            return response
        redirects.append(shown_url(url))
        request = request.redirected(response.status, url)


async def _send(session: aiohttp.ClientSession, request: Request) -> aiohttp.ClientResponse:
    try:
        return await session.request(
            request.method,
            request.url,
            headers=request.headers,
            data=request.body,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
            middlewares=(send_once,),
        )
    except (aiohttp.ClientConnectorError, aiohttp.ServerTimeoutError, aiohttp.InvalidURL) as error:
        raise CannotConnect(shown_url(request.url), str(error) or "timed out while connecting") from error
    except (
        aiohttp.ClientError,
        HttpProcessingError,
        OSError,
        ValueError,
    ) as error:  # ValueError: no field can hold this ID
        raise _NoAnswer(str(error) or type(error).__name__) from error


def _head_of(response: aiohttp.ClientResponse, seconds: float) -> Head:
    version = response.version
    assert version is not None  # the answer is there
    return Head(response.status, response.reason or "", (version.major, version.minor), tuple(response.raw_headers), seconds)
