"""The payload of an answer whose bytes go from aiohttp's parser straight to a receiver."""

from typing import Protocol

from aiohttp.streams import StreamReader


class Collecting(Protocol):
    """A protocol that collects the body bytes of one read."""

    body: list[bytes]
    body_ended: bool


class ReceivedBody(StreamReader):
    """The payload of an attached response: it buffers nothing and passes all bytes to its protocol."""

    __slots__ = ()
    _protocol: Collecting  # type: ignore[assignment]  # aiohttp's own protocol, which collects as well

    def feed_data(self, data: bytes, size: int = 0) -> bool:
        self._protocol.body.append(data)
        return False

    def begin_http_chunk_receiving(self) -> None:
        """Ignore the boundary: HTTP chunks mean nothing to an event stream."""

    def end_http_chunk_receiving(self) -> None:
        """Ignore the boundary: HTTP chunks mean nothing to an event stream."""

    def feed_eof(self) -> None:
        self._protocol.body_ended = True
        super().feed_eof()


def take_buffer(content: StreamReader) -> bytes:
    """Return and clear the stream reader's buffer. `read_nowait` would run the parser again for each HTTP chunk, which may add more."""
    received = b"".join(content._buffer)
    content._buffer.clear()
    content._size = 0
    return received
