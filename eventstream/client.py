"""Follow an event stream over HTTP and reconnect as the HTML standard's `EventSource` does (section 9.2)."""

import asyncio
from collections.abc import AsyncIterator, Callable
from ssl import SSLContext
from types import TracebackType
from typing import Literal, Self

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from .errors import ConnectionFailed, DecodedTooLarge, Undecodable
from .framer import DEFAULT_MAX_BLOCK_BYTES, count_blocks
from .parser import Event, Parser
from .received import Received
from .reconnection import Reconnection
from .request import NETWORK_ERRORS, Headers, StreamRequest, Unavailable, describe, open_session, refuse_control_characters
from .response import ENDED, Body, leave, notice_broken_http

State = Literal["connecting", "open", "closed"]
Loss = Literal["failed", "lost", "ended"]


class EventSource:
    """The events of one URL, as an async iterator that outlives its connections:

        async with EventSource("https://example.org/news") as source:
            async for event in source:
                print(event.type, event.data)

    It connects at the first step of the iteration. Whenever the stream ends or breaks, it reconnects after the delay that `reconnection`
    returns, and asks for the events after the last event ID. The iteration ends when the server answers 204 or after `close()`.
    Raises ConnectionFailed when the answer forbids a retry (a status other than 200, 204, 429 and 5xx, another content type, an
    unusable redirect). Raises BlockTooLarge and DecodedTooLarge after the good blocks before them. All are final.
    Leaving the loop and iterating again loses nothing. Only one task at a time may iterate; any task may call `restart()` and `close()`.
    Reading is pulled: while the caller does not iterate, less than half a MiB is read ahead, and then back-pressure stops the server.

    - `session`: used and left open. The default is a session of its own, which `close()` closes and in which each attempt is one
      request. In a session of the caller, aiohttp repeats a GET at once when the server hangs up without an answer.
    - `method`, `headers`, `body`: sent unchanged with each connection. `headers` may be a function that is called for each attempt.
      Headers of the same name replace `Accept`, `Cache-Control`, `Accept-Encoding` and, with a body, `Content-Type: text/plain`.
    - `url`: each connection starts there and follows redirects anew. A `yarl.URL` is sent unchanged. Another origin (scheme, host and
      port) gets only headers about the accepted or sent content. `cross_origin_redirects`: whether to follow redirects to other origins.
    - `tls`: what aiohttp takes as `ssl`; other origins do not get it. `max_block_bytes`: the limit of one event block.
    - `last_event_id`: the event ID to resume after, sent with the first request already.
    - `connect_timeout_seconds`: for name lookup, TCP and TLS together. `read_timeout_seconds`: after this time without a byte the
      connection counts as lost. None waits for ever, even for a peer that vanished.
    - `on_comment`: called with each comment, in its order among the events, as soon as its line is complete.
    - `on_change`: called with the event source when a stream opened, when an attempt or stream failed or ended, and when it closed;
      see `state`, `last_loss`, `last_error` and `last_status`. Blocks that were read before are yielded afterwards.

    Raises ValueError for a URL, header or last event ID that cannot be sent.
    """

    def __init__(
        self,
        url: str | URL,
        *,
        session: aiohttp.ClientSession | None = None,
        method: str = "GET",
        headers: Headers | None = None,
        body: bytes | str | None = None,
        last_event_id: str = "",
        reconnection: Reconnection | None = None,
        connect_timeout_seconds: float = 10.0,
        read_timeout_seconds: float | None = None,
        cross_origin_redirects: bool = True,
        tls: SSLContext | bool = True,
        max_block_bytes: int = DEFAULT_MAX_BLOCK_BYTES,
        on_comment: Callable[[str], None] | None = None,
        on_change: Callable[["EventSource"], None] | None = None,
    ) -> None:
        self.connections = 0
        """The number of event streams that were opened."""
        self.bytes_received = 0
        """Bytes of event stream in all, unfinished blocks and comments included."""
        self.blocks_received = 0
        """Whole event blocks in all, including those not yet yielded."""
        self.last_error: str | None = None
        """Why the newest attempt or connection ended; None while one is open or before the first attempt."""
        self.last_status: int | None = None
        """The status of the newest answer, None when the newest attempt got none."""
        self.last_loss: Loss | None = None
        """`failed`: the newest attempt got no stream; `lost`: the stream broke; `ended`: the server ended it. None while one is open."""
        self.retry_after_seconds = 0.0
        """The least delay that the answer to the newest failed attempt asked for, 0 for none."""
        self.response_headers: CIMultiDictProxy[str] = CIMultiDictProxy(CIMultiDict())
        """The header fields of the newest event stream's response."""
        self.tap: Callable[[bytes, bytes, int], None] | None = None
        """A function called with each chunk (empty at the end), the blocks it completes, and the bytes of the unfinished block."""
        self._request = StreamRequest.build(url, method, headers, body, cross_origin_redirects=cross_origin_redirects, tls=tls)
        refuse_control_characters("Last-Event-ID", last_event_id)
        self._session = session
        self._owns_session = session is None
        self._reconnection = reconnection or Reconnection()
        self._timeout = aiohttp.ClientTimeout(total=None, connect=connect_timeout_seconds, sock_read=read_timeout_seconds)
        self._parser = Parser(last_event_id, on_comment=on_comment)
        self._received = Received(self._parser, max_block_bytes)
        self._on_change = on_change
        self._state: State = "connecting"
        self._body: Body | None = None  # of the open stream
        self._due = 0.0  # loop time of the next attempt, 0 before the first one and during an attempt
        self._waiting: asyncio.Timeout | None = None  # around the wait of the iterating task

    def __repr__(self) -> str:
        return f"<EventSource {self._request.shown_url} {self._state} last_event_id={self.last_event_id!r} connections={self.connections}>"

    @property
    def state(self) -> State:
        """The state: `connecting` also before the first attempt and between two attempts; `closed` is final."""
        return self._state

    @property
    def last_event_id(self) -> str:
        """The last event ID after the newest block that was yielded; sent when reconnecting unless empty."""
        return self._parser.last_event_id

    @property
    def reconnection_time(self) -> int | None:
        """The server's last `retry` in milliseconds, None when it sent none."""
        return self._parser.reconnection_time

    @property
    def next_attempt_seconds(self) -> float:
        """Seconds until the next attempt is due; 0 during an attempt and while a stream is open."""
        return max(0.0, self._due - asyncio.get_running_loop().time())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        while (block := await self._next_block()) is not None:
            if events := self._parser.feed(block):
                if self._reconnection.quiet:
                    self._reconnection.progressed()
                return events[0]
        raise StopAsyncIteration

    async def blocks(self) -> AsyncIterator[bytes]:
        """Yield the raw event blocks instead of events, one at a time, including those without data.

        Joined, they are the stream without byte order marks and unfinished blocks. Blank lines that belong to no block are yielded as
        an item of their own.
        """
        async for block, _ in self.parsed_blocks():
            yield block

    async def parsed_blocks(self) -> AsyncIterator[tuple[bytes, Event | None]]:
        """Yield each event block, as `blocks()` does, with its event, or None when it has no data."""
        while (block := await self._next_block()) is not None:
            events = self._parser.feed(block)
            if events and self._reconnection.quiet:
                self._reconnection.progressed()
            yield block, events.pop() if events else None  # the generator keeps no reference to the event
            del block

    def attempt_in(self, seconds: float) -> None:
        """Make the next attempt in `seconds`, whatever `reconnection` says. No effect during an attempt or while a stream is open."""
        if self._state == "connecting" and self._due:
            self._due = asyncio.get_running_loop().time() + seconds
            self._interrupt()

    def restart(self) -> None:
        """Drop the connection or end the back-off, and reconnect at once. No effect once closed.

        Blocks that were read before are still yielded first, so that events without IDs are not lost needlessly.
        """
        if self._state != "closed":
            self._drop("restarted")
            self._due = 0.0
            self._interrupt()

    async def close(self) -> None:
        """End the iteration, in whichever task it runs, and close the connection. May be called again."""
        self._end("closed")
        self._interrupt()
        if self._owns_session and self._session is not None:
            await self._session.close()

    async def _next_block(self) -> bytes | None:
        """Return the next block, None at the end of the iteration."""
        if self._waiting is not None:
            raise RuntimeError("this event source is being iterated by another task")
        while self._state != "closed":
            if (block := self._received.pop()) is not None:
                return block
            if self._received.too_large is not None:
                self._end(str(self._received.too_large))
                raise self._received.too_large
            if self._received.look_ahead():
                continue  # a callback may have closed the source
            try:
                async with asyncio.timeout(None) as self._waiting:
                    await (self._connect() if self._body is None else self._read(self._body))
            except TimeoutError:
                pass  # from restart() or close(): network timeouts do not get here
            except (ConnectionFailed, DecodedTooLarge) as error:
                self._end(str(error))
                raise
            finally:
                self._waiting = None
        return None

    def _interrupt(self) -> None:
        if self._waiting is not None:
            self._waiting.reschedule(0.0)  # a deadline in the past ends the wait in the next turn of the loop
            self._waiting = None

    def _interrupted(self) -> bool:
        """Whether restart() or close() voided the wait in the same turn of the loop in which it finished."""
        return self._waiting is None

    async def _connect(self) -> None:
        """Wait until the next attempt is due, and make it."""
        await asyncio.sleep(self._due - asyncio.get_running_loop().time())
        if self._interrupted():
            return
        self._session = self._session or open_session()
        self._due = 0.0
        try:
            response = await self._request.open(self._session, self.last_event_id, self._timeout)
        except Unavailable as error:
            if not self._interrupted():
                self.last_status, self.retry_after_seconds = error.status, error.retry_after_seconds
                self._reconnection.failed()
                self._lose("failed", str(error))
            return
        except ConnectionFailed as error:
            self.last_status = error.status or None
            raise
        if response is None:
            self.last_status = 204
            self._end("the server answered 204 No Content")
        elif self._interrupted():
            leave(response)
        else:
            self._open(response)

    def _open(self, response: aiohttp.ClientResponse) -> None:
        notice_broken_http(response)
        self._body, self._state = Body(response), "open"
        self._received.open()
        self.last_error = self.last_loss = None
        self.last_status, self.retry_after_seconds = response.status, 0.0
        self.response_headers = response.headers
        self.connections += 1
        self._reconnection.succeeded()
        self._tell()

    async def _read(self, body: Body) -> None:
        try:
            chunk = await body.read()
            reason = "" if chunk else ENDED
        except (*NETWORK_ERRORS, Undecodable) as error:
            chunk, reason = body.take_rest(), describe(error, self._timeout)
        if self._interrupted():
            return
        self.bytes_received += len(chunk)
        blocks = self._received.add(chunk)
        if self._received.too_large is not None:
            reason = str(self._received.too_large)
        if self.tap is not None:
            self.tap(chunk, blocks, self._received.pending_bytes)
        self.blocks_received += count_blocks(blocks)
        if reason:
            self._reconnection.ended()
            self._lose("ended" if reason is ENDED else "lost", reason)

    def _lose(self, loss: Loss, reason: str) -> None:
        """Record that a connection or an attempt is over, and schedule the next attempt."""
        self._drop(reason)
        self.last_error, self.last_loss = reason, loss
        if (retry := self._received.newest_retry) is not None:
            self._reconnection.retry(retry)
        self._due = asyncio.get_running_loop().time() + max(self._reconnection.next_delay(), self.retry_after_seconds)
        self._tell()

    def _drop(self, reason: str) -> None:
        if self._body is not None:
            leave(self._body.response)
            self._body = None
            self._state = "connecting"
            self.last_error = reason

    def _end(self, reason: str) -> None:
        if self._state != "closed":
            self._drop(reason)
            self.last_error, self._state = reason, "closed"
            self._tell()

    def _tell(self) -> None:
        if self._on_change is not None:
            self._on_change(self)
