"""Follows an event stream over HTTP, through every reconnection, as the HTML standard's `EventSource` does (section 9.2)."""

import asyncio
from collections.abc import AsyncIterator, Callable
from ssl import SSLContext
from types import TracebackType
from typing import Literal, Self

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from .errors import ConnectionFailed
from .framer import DEFAULT_MAX_BLOCK_BYTES, count_blocks
from .parser import Event, Parser
from .received import Received
from .reconnection import Reconnection
from .request import NETWORK_ERRORS, Headers, StreamRequest, Unavailable, describe, open_session, refuse_control_characters
from .response import ENDED, leave, notice_broken_http, take_rest

State = Literal["connecting", "open", "closed"]
Loss = Literal["failed", "lost", "ended"]


class EventSource:
    """The events of one URL, as an async iterator that outlives its connections:

        async with EventSource("https://example.org/news") as source:
            async for event in source:
                print(event.type, event.data)

    It connects at the first step of the iteration, and again whenever the stream ends or breaks, after the delay that
    `reconnection` gives, asking for what came after the last event ID. The iteration ends when the server answers 204 or after
    `close()`. It raises ConnectionFailed when the server's answer forbids to go on (a status other than 200, 204, 429 and 5xx,
    another content type, a redirect that leads nowhere), and BlockTooLarge after the good blocks before it; both are final.
    Leaving the loop and iterating again loses nothing. One task at a time may iterate; `restart()` and `close()` may be called by any.

    Reading is pulled: while nobody asks for the next event, less than half a MiB is read ahead, and then the server has to wait.

    - `session`: used and left open; without one the event source has its own, which `close()` closes. With its own each attempt is
      one request; a session of the caller repeats a GET at once when the server hangs up without an answer, as aiohttp does.
    - `method`, `headers`, `body`: as they are, for each connection; `headers` may be a function that gives them for each attempt anew.
      Headers of the same name replace `Accept`, `Cache-Control`, `Accept-Encoding` and, with a body, `Content-Type: text/plain`. Each
      connection starts at `url` (a `yarl.URL` is sent as it is), redirects are followed anew. Another origin (scheme, host and port)
      gets none of them but what says which content is accepted or sent. `cross_origin_redirects`: whether it is asked at all. `tls`:
      what aiohttp takes as `ssl`; other origins do not get it.
    - `last_event_id`: where to go on from, sent with the first request already. `max_block_bytes`: the limit of one event block.
    - `connect_timeout_seconds`: for name lookup, TCP and TLS together. `read_timeout_seconds`: when no byte, not even a comment, came
      for so long, the connection counts as lost; None waits for ever, also on a peer that is gone without a word.
    - `on_comment`: is called with each comment, in its order among the events, as soon as its line has come.
    - `on_change`: is called with the event source when it has opened a stream, when an attempt or a stream has failed or ended, and
      when it has closed; `state`, `last_loss`, `last_error` and `last_status` tell which. The blocks read before are given afterwards.

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
        """How many times an event stream was opened."""
        self.bytes_received = 0
        """Bytes of event stream in all, unfinished blocks and comments included."""
        self.blocks_received = 0
        """Whole event blocks in all, those not given yet too."""
        self.last_error: str | None = None
        """Why the newest attempt or connection ended, None while one is open or none was tried."""
        self.last_status: int | None = None
        """The status of the newest answer, None when the newest attempt got none."""
        self.last_loss: Loss | None = None
        """`failed`: the newest attempt got no stream; `lost`: the stream broke; `ended`: the server ended it. None while one is open."""
        self.retry_after_seconds = 0.0
        """The least time that the newest failed attempt's answer asked to wait, 0 for none."""
        self.response_headers: CIMultiDictProxy[str] = CIMultiDictProxy(CIMultiDict())
        """The header fields of the newest event stream's response."""
        self.tap: Callable[[bytes, bytes, int], None] | None = None
        """Is given each chunk as it came (an empty one at the end), the blocks that it completes, and how many bytes wait for theirs."""
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
        self._response: aiohttp.ClientResponse | None = None
        self._due = 0.0  # loop time of the next attempt, 0 for the first one and while one is under way
        self._waiting: asyncio.Timeout | None = None  # around whatever the iterating task waits for

    def __repr__(self) -> str:
        return f"<EventSource {self._request.shown_url} {self._state} last_event_id={self.last_event_id!r} connections={self.connections}>"

    @property
    def state(self) -> State:
        """`connecting` also before the first attempt and between two; `closed` for good."""
        return self._state

    @property
    def last_event_id(self) -> str:
        """The last event ID after the newest block that the iteration gave; what a reconnection sends, unless empty."""
        return self._parser.last_event_id

    @property
    def reconnection_time(self) -> int | None:
        """The server's last `retry` in milliseconds, None when it sent none."""
        return self._parser.reconnection_time

    @property
    def next_attempt_seconds(self) -> float:
        """How long until the next attempt is due; 0 while one is under way or a stream is open."""
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
        """Gives the event blocks as they came, one at a time, those without data too, in place of events.

        Joined they are the stream without its byte order marks and unfinished blocks: blank lines that belong to no block
        come as an item of their own.
        """
        async for block, _ in self.parsed_blocks():
            yield block

    async def parsed_blocks(self) -> AsyncIterator[tuple[bytes, Event | None]]:
        """Gives the event blocks like `blocks()`, each with the event that it is, None when it has no data."""
        while (block := await self._next_block()) is not None:
            events = self._parser.feed(block)
            if events and self._reconnection.quiet:
                self._reconnection.progressed()
            yield block, events[0] if events else None

    def attempt_in(self, seconds: float) -> None:
        """Make the next attempt in `seconds`, whatever `reconnection` says. No effect during an attempt or while a stream is open."""
        if self._state == "connecting" and self._due:
            self._due = asyncio.get_running_loop().time() + seconds
            self._interrupt()

    def restart(self) -> None:
        """Drops the connection and connects again at once, also out of a waiting back-off; no effect once closed.

        Blocks that were read before are still given first, so that events without IDs are not lost needlessly.
        """
        if self._state != "closed":
            self._drop("restarted")
            self._due = 0.0
            self._interrupt()

    async def close(self) -> None:
        """Ends the iteration, in whichever task it is, and closes the connection; may be called again."""
        self._end("closed")
        self._interrupt()
        if self._owns_session and self._session is not None:
            await self._session.close()

    async def _next_block(self) -> bytes | None:
        """Gives the next block, None when there will be none any more."""
        if self._waiting is not None:
            raise RuntimeError("this event source is being iterated by another task")
        while self._state != "closed":
            if (block := self._received.pop()) is not None:
                return block
            if self._received.too_large is not None:
                self._end(str(self._received.too_large))
                raise self._received.too_large
            if self._received.look_ahead():
                continue  # whoever was told may have closed it
            try:
                async with asyncio.timeout(None) as self._waiting:
                    await (self._connect() if self._response is None else self._read(self._response))
            except TimeoutError:
                pass  # restart() or close(): timeouts of the network do not get here
            except ConnectionFailed as error:
                self._end(str(error))
                raise
            finally:
                self._waiting = None
        return None

    def _interrupt(self) -> None:
        if self._waiting is not None:
            self._waiting.reschedule(0.0)  # long past, so the wait ends in the next turn of the loop
            self._waiting = None

    def _interrupted(self) -> bool:
        """Whether what was waited for came in the very turn of the loop in which restart() or close() had made it void."""
        return self._waiting is None

    async def _connect(self) -> None:
        """Waits for its turn and makes one attempt."""
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
        self._response, self._state = response, "open"
        self._received.open()
        self.last_error = self.last_loss = None
        self.last_status, self.retry_after_seconds = response.status, 0.0
        self.response_headers = response.headers
        self.connections += 1
        self._reconnection.succeeded()
        self._tell()

    async def _read(self, response: aiohttp.ClientResponse) -> None:
        try:
            chunk = await response.content.readany()
            reason = "" if chunk else ENDED
        except NETWORK_ERRORS as error:
            chunk, reason = take_rest(response.content), describe(error, self._timeout)
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
        """Note that a connection or an attempt is over, and when the next is due."""
        self._drop(reason)
        self.last_error, self.last_loss = reason, loss
        if (retry := self._received.newest_retry) is not None:
            self._reconnection.retry(retry)
        self._due = asyncio.get_running_loop().time() + max(self._reconnection.next_delay(), self.retry_after_seconds)
        self._tell()

    def _drop(self, reason: str) -> None:
        if self._response is not None:
            leave(self._response)
            self._response = None
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
