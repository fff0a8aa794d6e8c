"""The body of a request, on its way to the upstream."""

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterator, Callable

from aiohttp import HttpVersion11, web
from multidict import CIMultiDict, istr

from ..access.budget import Budget, Holding
from ..access.exchange import Exchange
from ..http.connection import ClientConnection
from ..http.incoming import Incoming
from ..http.malformed import BAD_BODY
from ..policy.refusal import Refusal

_LEAST_BYTES = 256
"""Bytes that must arrive within the time limit: single bytes are no progress."""
_SMALL_BYTES = 4096  # a complete body up to this size is not counted: its request takes more memory, and requests are limited
_PIECE_BYTES = 64 * 1024  # the connection resumes reading when less than this is buffered
_WHOLE_BYTES = 512 * 1024  # a complete body beyond this size is sent in pieces
_CONTENT_LENGTH = istr("Content-Length")


class Bodies:
    """The bodies of all requests. `budget` counts their bytes in memory. Each may have up to `max_bytes`."""

    def __init__(self, budget: Budget, max_bytes: int) -> None:
        self.budget = budget
        self.max_bytes = max_bytes

    def __repr__(self) -> str:
        return f"<Bodies {self.budget}>"

    def of(self, request: web.BaseRequest, exchange: Exchange, *, hashed: bool = False) -> "RequestBody":
        """Return the body of a request. Another mode may have begun to read it."""
        if isinstance(request, Incoming) and isinstance(request.received, RequestBody):
            return request.received
        return RequestBody(request, self, exchange, hashed=hashed)


class RequestBody:
    """A request's body, streamed to the upstream or read ahead.

    A body of more than 4 KiB counts for its client, bytes buffered by the connection included, until the upstream has received it or
    answered. While the gateway waits for the client, 256 bytes must arrive within the route's `body_timeout_seconds`. The upstream must
    accept some within `first_byte_timeout_seconds`. With `hashed` it has a digest.
    """

    __slots__ = (
        "_bodies",
        "_bytes_to_come",
        "_content",
        "_give_up",
        "_given",
        "_hash",
        "_here_bytes",
        "_holding",
        "_owner",
        "_read",
        "_request",
        "_seconds_left",
        "_streams",
        "_timeout_seconds",
        "_upstream_seconds",
        "_waiting",
        "received_bytes",
        "refusal",
    )

    def __init__(self, request: web.BaseRequest, bodies: Bodies, exchange: Exchange, *, hashed: bool) -> None:
        self._request = request
        self._content = request.content
        self._bodies = bodies
        self._owner = exchange.owner
        self._timeout_seconds = self._seconds_left = exchange.route.body_timeout_seconds
        self._upstream_seconds = exchange.route.first_byte_timeout_seconds
        self._bytes_to_come = _LEAST_BYTES
        self._read: deque[bytes] | None = None  # read ahead, and not sent yet
        self._here_bytes = 0  # of those, and of the chunk being sent
        self._hash = hashlib.sha256() if hashed else None
        self._holding: Holding | None = None
        self._waiting: asyncio.Timeout | None = None
        self._give_up: Callable[[], None] | None = None
        self._given = self._streams = False
        self.received_bytes = 0
        """Bytes read so far."""
        self.refusal: Refusal | None = None
        """Why it was not received to its end."""

    def __repr__(self) -> str:
        return f"<RequestBody received={self.received_bytes} here={self._here_bytes}>"

    @property
    def digest(self) -> bytes:
        """Digest of the bytes read so far: of the whole body once all of it is read."""
        return self._hash.digest() if self._hash is not None else b""

    @property
    def ahead(self) -> bytes:
        """The bytes that were read ahead, and are not sent yet."""
        return b"".join(self._read or ())

    def announce(self, fields: CIMultiDict[str]) -> None:
        """Add its length to the fields of the upstream request, if it is known yet."""
        if self._content.is_eof():
            fields.setdefault(_CONTENT_LENGTH, str(self._content.total_bytes))

    async def read(self, most_bytes: int) -> bool:
        """Read it ahead, and return whether it is complete. It is not if there is a `refusal`, or more than `most_bytes`.

        A longer body has no digest. `open` continues where reading stopped.
        """
        if not self._request.body_exists:
            return True
        self._begin()
        ahead = self._read = deque[bytes]()
        try:
            while not self._content.at_eof():
                ahead.append(await self._next())
                self._raise_refusal()
                if self.received_bytes > most_bytes:
                    self._hash = None
                    return False
        except ValueError:
            if self.refusal is None:
                raise
            self.close()
            return False
        return True

    def open(self, on_taken: Callable[[], None], give_up: Callable[[], None]) -> AsyncIterator[bytes] | bytes | None:
        """Return `data` for aiohttp's client: None without a body, bytes if it is complete, otherwise a stream of chunks.

        `on_taken` is called when all of it has been sent. `give_up` is called when its upstream accepts nothing in time, or the body gave
        way to others. A client that waits for `100 Continue` (RFC 9110 section 10.1.1) gets it now. Call `answered` when the upstream has
        answered, and `end` when the body is no longer needed.
        Raises ValueError if it was refused.
        """
        self._raise_refusal()
        content = self._content
        if not self._request.body_exists or (content.is_eof() and not content.total_bytes):
            on_taken()
            return None
        self._given, self._give_up = True, give_up
        if content.is_eof() and content.total_bytes <= min(_WHOLE_BYTES, self._bodies.max_bytes):
            if content.total_bytes > _SMALL_BYTES:
                self._begin()
            rest = b"" if content.at_eof() else self._receive(content.read_nowait())
            self._raise_refusal()
            on_taken()
            return b"".join((*self._read, rest)) if self._read else rest
        self._begin()
        return self._chunks(on_taken, give_up)

    def answered(self) -> None:
        """Release the memory, because the upstream has answered. A stream of chunks that is being sent goes on until `end`."""
        if not self._streams:
            self.end()

    def close(self) -> None:
        """Release the memory, unless `open` has returned the body."""
        if not self._given:
            self.end()

    def end(self) -> None:
        """Release the memory in any case: the upstream request is over. The reader of its chunks may have ended without closing it."""
        self._give_up = None
        if self._holding is None:
            return
        self._read = None
        self._here_bytes = 0
        self._holding.close()
        self._holding = None
        protocol = self._request.protocol
        if isinstance(protocol, ClientConnection) and protocol.count_body == self._count:
            protocol.count_body = None

    def _begin(self) -> None:
        if self._holding is not None:
            return
        self._holding = self._bodies.budget.open(self._owner, reclaim=self._reclaim)
        self._count()
        protocol = self._request.protocol
        if self._content.is_eof():
            return
        if isinstance(protocol, ClientConnection):
            protocol.count_body = self._count
        if self._request.headers.get("Expect", "").lower() == "100-continue" and self._request.version >= HttpVersion11:
            assert self._request.transport is not None
            self._request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _count(self) -> None:
        """Count the bytes in memory, with those that the connection has buffered."""
        if self._holding is not None:
            self._holding.set(self._here_bytes + self._content.total_bytes - self.received_bytes)

    async def _chunks(self, on_taken: Callable[[], None], give_up: Callable[[], None]) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        self._streams = True
        try:
            while self._read or not self._content.at_eof():
                chunk = self._read.popleft() if self._read else await self._next()
                if chunk:
                    self._raise_refusal()
                    stalled = loop.call_later(self._upstream_seconds, give_up) if self._upstream_seconds else None
                    try:
                        yield chunk
                    finally:
                        if stalled is not None:
                            stalled.cancel()
                    self._here_bytes -= len(chunk)
                    self._count()
                self._raise_refusal()
            on_taken()
        finally:
            self._streams = False
            self.end()

    async def _next(self) -> bytes:
        self._raise_refusal()
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            async with asyncio.timeout(max(self._seconds_left, 0.001) if self._timeout_seconds else None) as self._waiting:
                chunk = await self._content.read(_PIECE_BYTES)
        except TimeoutError:
            self._raise_refusal()
            detail = f"the body stalled: fewer than {_LEAST_BYTES} bytes arrived within {self._timeout_seconds:g} s"
            raise self._refuse(Refusal(408, "body", detail)) from None
        except web.RequestPayloadError:
            raise self._refuse(BAD_BODY) from None
        finally:
            self._waiting = None
        self._seconds_left -= loop.time() - begun  # time of a slow upstream does not count for the client
        self._bytes_to_come -= len(chunk)
        if self._bytes_to_come <= 0:
            self._seconds_left, self._bytes_to_come = self._timeout_seconds, _LEAST_BYTES
        return self._receive(chunk)

    def _receive(self, chunk: bytes) -> bytes:
        self.received_bytes += len(chunk)
        self._here_bytes += len(chunk)
        if self.received_bytes > self._bodies.max_bytes:
            raise self._refuse(Refusal(413, "body", f"the body must have at most {self._bodies.max_bytes} bytes"))
        if self._hash is not None:
            self._hash.update(chunk)
        self._count()
        return chunk

    def _reclaim(self) -> bool:
        budget = self._bodies.budget
        detail = "the request bodies of {} exceed the limit of {} bytes; retry later"
        if budget.of(self._owner) > budget.limit_per_client:
            self.refusal = Refusal(429, "client-share", detail.format(self._owner, budget.limit_per_client))
        else:
            self.refusal = Refusal(503, "overload", detail.format("all clients", budget.limit))
        give_up = self._give_up
        self.end()
        if self._waiting is not None:
            self._waiting.reschedule(asyncio.get_running_loop().time())
        if give_up is not None:
            give_up()
        return True

    def _refuse(self, refusal: Refusal) -> ValueError:
        self.refusal = refusal
        return ValueError(refusal.detail)

    def _raise_refusal(self) -> None:
        if self.refusal is not None:
            raise ValueError(self.refusal.detail)
