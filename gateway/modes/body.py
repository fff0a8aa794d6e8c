"""The body of a request on its way up."""

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterator, Callable

from aiohttp import HttpVersion11, web
from multidict import CIMultiDict, istr

from ..access.budget import Budget, Holding
from ..access.exchange import Exchange
from ..http.downstream import DownstreamProtocol
from ..http.incoming import Incoming
from ..http.malformed import BAD_BODY
from ..policy.refusal import Refusal

_LEAST_BYTES = 256
"""What a body must bring within its time limit: single bytes are no progress."""
_SMALL_BYTES = 4096  # a body that is here and has no more is not counted: its request takes more, and requests are
_PIECE_BYTES = 64 * 1024  # the connection reads on when less than this is left of what came
_WHOLE_BYTES = 512 * 1024  # a body that is here and has more leaves in pieces
_CONTENT_LENGTH = istr("Content-Length")


class Bodies:
    """The bodies of all requests; `budget` counts the bytes of them that are in memory, each may have `max_bytes`."""

    def __init__(self, budget: Budget, max_bytes: int) -> None:
        self.budget = budget
        self.max_bytes = max_bytes

    def __repr__(self) -> str:
        return f"<Bodies {self.budget}>"

    def of(self, request: web.BaseRequest, exchange: Exchange, *, hashed: bool = False) -> "RequestBody":
        """Return the body of a request, which another mode may have begun to read."""
        if isinstance(request, Incoming) and request.received is not None:
            return request.received
        return RequestBody(request, self, exchange, hashed=hashed)


class RequestBody:
    """Streams a request's body, or reads it ahead, and says when the last of it was taken.

    What is here of more than 4 KiB counts for its client, what the connection has read ahead included, until the upstream has taken it
    or answered. The client must send 256 bytes within the route's `body_timeout_seconds` while they are waited for, and the upstream must
    take some within `first_byte_timeout_seconds`. With `hashed` it gets a digest.
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
        self._owner = exchange.counted_as
        self._timeout_seconds = self._seconds_left = exchange.route.body_timeout_seconds
        self._upstream_seconds = exchange.route.first_byte_timeout_seconds
        self._bytes_to_come = _LEAST_BYTES
        self._read: deque[bytes] | None = None  # ahead, and not taken yet
        self._here_bytes = 0  # of those, and of what is being taken
        self._hash = hashlib.sha256() if hashed else None
        self._holding: Holding | None = None
        self._waiting: asyncio.Timeout | None = None
        self._give_up: Callable[[], None] | None = None
        self._given = self._streams = False
        self.received_bytes = 0
        """Bytes of it that were read, here or by an upstream."""
        self.refusal: Refusal | None = None
        """Why it was not taken to its end."""

    def __repr__(self) -> str:
        return f"<RequestBody received={self.received_bytes} here={self._here_bytes}>"

    @property
    def digest(self) -> bytes:
        """A digest of what was read; of all of it when it was read or taken to its end."""
        return self._hash.digest() if self._hash is not None else b""

    def announce(self, fields: CIMultiDict[str]) -> None:
        """Add its length to the fields of the upstream request if it is known by now."""
        if self._content.is_eof():
            fields.setdefault(_CONTENT_LENGTH, str(self._content.total_bytes))

    async def read(self, most_bytes: int) -> bool:
        """Read it ahead, and return whether all of it is here: not if there is a `refusal`, or if it has more than `most_bytes`.

        A longer one has no digest, and goes on where reading it has stopped.
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
        """Return what aiohttp's client takes as `data`: None without a body, bytes when it is here already, else a stream of chunks.

        `on_taken` is called when the last of it was taken, and `give_up` when its upstream is not to be waited for any more: it takes
        nothing, or the body gave way to others. A client that waits for `100 Continue` (RFC 9110 section 10.1.1) gets it now. Call
        `answered` when the upstream has answered, and `end` when it has no more use for the body.
        Raises ValueError when it was refused.
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
        """Let go of what is here, because the upstream has answered. A stream of chunks that is being taken goes on until `end`."""
        if not self._streams:
            self.end()

    def close(self) -> None:
        """Let go of what was read, unless `open` has given it away."""
        if not self._given:
            self.end()

    def end(self) -> None:
        """Let go of what is here in any case: its upstream is asked no more. What takes its chunks may have died without a word."""
        self._give_up = None
        if self._holding is None:
            return
        self._read = None
        self._here_bytes = 0
        self._holding.close()
        self._holding = None
        protocol = self._request.protocol
        if isinstance(protocol, DownstreamProtocol) and protocol.count_body == self._count:
            protocol.count_body = None

    def _begin(self) -> None:
        if self._holding is not None:
            return
        self._holding = self._bodies.budget.open(self._owner, give_way=self._give_way)
        self._count()
        protocol = self._request.protocol
        if self._content.is_eof():
            return
        if isinstance(protocol, DownstreamProtocol):
            protocol.count_body = self._count
        if self._request.headers.get("Expect", "").lower() == "100-continue" and self._request.version >= HttpVersion11:
            assert self._request.transport is not None
            self._request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _count(self) -> None:
        """Count what is here; the connection reads ahead while nothing is taken."""
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
            detail = f"the body stalled: less than {_LEAST_BYTES} bytes of it came within {self._timeout_seconds:g} s"
            raise self._refuse(Refusal(408, "body", detail)) from None
        except web.RequestPayloadError:
            raise self._refuse(BAD_BODY) from None
        finally:
            self._waiting = None
        self._seconds_left -= loop.time() - begun  # what an upstream that takes it slowly needs is not the client's fault
        self._bytes_to_come -= len(chunk)
        if self._bytes_to_come <= 0:
            self._seconds_left, self._bytes_to_come = self._timeout_seconds, _LEAST_BYTES
        return self._receive(chunk)

    def _receive(self, chunk: bytes) -> bytes:
        self.received_bytes += len(chunk)
        self._here_bytes += len(chunk)
        if self.received_bytes > self._bodies.max_bytes:
            raise self._refuse(Refusal(413, "body", f"the body passed {self._bodies.max_bytes} bytes, which is the limit"))
        if self._hash is not None:
            self._hash.update(chunk)
        self._count()
        return chunk

    def _give_way(self) -> bool:
        budget = self._bodies.budget
        detail = "the request bodies of {} passed {} bytes, which is the limit; retry later"
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
