"""The body of a request on its way up."""

import asyncio
from collections.abc import AsyncIterator, Callable

from aiohttp import HttpVersion11, web

from .incoming import Incoming
from .malformed import BAD_BODY
from .refusal import Refusal

_LEAST_BYTES = 256
"""What a body must bring within its time limit: single bytes are no progress."""


class RequestBody:
    """Streams a request's body, and says when the last of it was taken.

    It may have `max_bytes`, and as long as it is waited for, 256 bytes of it must come within `timeout_seconds` (0: no limit).
    """

    def __init__(self, request: web.BaseRequest, max_bytes: int, on_taken: Callable[[], None], timeout_seconds: float) -> None:
        self._request = request
        self._max_bytes = max_bytes
        self._on_taken = on_taken
        self._timeout_seconds = timeout_seconds
        self.taken_bytes = 0
        self.refusal: Refusal | None = None
        """Why it was not taken to its end."""

    def open(self) -> AsyncIterator[bytes] | bytes | None:
        """Gives what aiohttp's client takes as `data`: None without a body, bytes when it is here already, else a stream of chunks.

        A client that waits for `100 Continue` (RFC 9110 section 10.1.1) gets it now.
        """
        content = self._request.content
        if isinstance(self._request, Incoming) and self._request.received_body is not None:
            self._on_taken()
            return self._request.received_body
        if not self._request.body_exists or content.at_eof():
            self._on_taken()
            return None
        if content.is_eof() and content.total_bytes <= self._max_bytes:
            self.taken_bytes = content.total_bytes
            self._on_taken()
            return content.read_nowait()
        if self._request.headers.get("Expect", "").lower() == "100-continue" and self._request.version >= HttpVersion11:
            assert self._request.transport is not None
            self._request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return self._chunks()

    async def read(self) -> bytes | None:
        """Gives the whole of it, None when there is a `refusal`."""
        content = self.open()
        if content is None or isinstance(content, bytes):
            return content or b""
        body = bytearray()
        try:
            async for chunk in content:
                body += chunk
        except ValueError:
            if self.refusal is None:
                raise
            return None
        return bytes(body)

    async def _chunks(self) -> AsyncIterator[bytes]:
        seconds, bytes_to_come = self._timeout_seconds, _LEAST_BYTES
        loop = asyncio.get_running_loop()
        while not self._request.content.at_eof():
            begun = loop.time()
            chunk = await self._next(max(seconds, 0.001) if self._timeout_seconds else None)
            seconds -= loop.time() - begun  # what an upstream that takes it slowly needs is not the client's fault
            bytes_to_come -= len(chunk)
            if bytes_to_come <= 0:
                seconds, bytes_to_come = self._timeout_seconds, _LEAST_BYTES
            self.taken_bytes += len(chunk)
            if self.taken_bytes > self._max_bytes:
                raise self._refuse(Refusal(413, "body", f"the body passed {self._max_bytes} bytes, which is the limit"))
            if chunk:
                yield chunk
        self._on_taken()

    async def _next(self, timeout: float | None) -> bytes:
        try:
            async with asyncio.timeout(timeout):
                return await self._request.content.readany()
        except TimeoutError:
            detail = f"the body stalled: less than {_LEAST_BYTES} bytes of it came within {self._timeout_seconds:g} s"
            raise self._refuse(Refusal(408, "body", detail)) from None
        except web.RequestPayloadError:
            raise self._refuse(BAD_BODY) from None

    def _refuse(self, refusal: Refusal) -> ValueError:
        self.refusal = refusal
        return ValueError(refusal.detail)
