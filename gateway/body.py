"""The body of a request on its way up."""

from collections.abc import AsyncIterator, Callable

from aiohttp import HttpVersion11, web


class RequestBody:
    """Streams a request's body, bounded by `max_bytes`, and says when the last of it was taken."""

    def __init__(self, request: web.BaseRequest, max_bytes: int, on_taken: Callable[[], None]) -> None:
        self._request = request
        self._max_bytes = max_bytes
        self._on_taken = on_taken
        self.taken_bytes = 0

    @property
    def too_large(self) -> bool:
        """Whether the body passed the limit; then it was not sent to its end."""
        return self.taken_bytes > self._max_bytes

    def open(self) -> AsyncIterator[bytes] | bytes | None:
        """Gives what aiohttp's client takes as `data`: None without a body, bytes when it is here already, else a stream of chunks.

        A client that waits for `100 Continue` (RFC 9110 section 10.1.1) gets it now.
        """
        content = self._request.content
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

    async def _chunks(self) -> AsyncIterator[bytes]:
        async for chunk in self._request.content.iter_any():
            self.taken_bytes += len(chunk)
            if self.too_large:
                raise ValueError(f"the body passed {self.taken_bytes} bytes, the limit is {self._max_bytes}")
            yield chunk
        self._on_taken()
