"""Receive the body of an upstream's answer as it arrives."""

from typing import Protocol

from aiohttp.streams import StreamReader


class Source(Protocol):
    """An upstream connection, as the receiver of its response's body sees it."""

    lost: BaseException | None
    """Reason why the connection failed, None while it is open and after a clean end."""

    def pause(self) -> None:
        """Stop reading: the kernel's window slows the upstream down."""

    def resume(self) -> None:
        """Resume reading."""

    def detach(self) -> None:
        """Forget the receiver."""


class Receiver(Protocol):
    """A receiver of what an upstream sends after its head."""

    bytes_out: int
    """Number of bytes written."""

    @property
    def paused(self) -> bool:
        """Whether the upstream must wait."""

    def attached(self, source: Source) -> None:
        """Set the connection whose bytes follow."""

    def feed(self, chunk: bytes) -> None:
        """Receive bytes of the body, without HTTP chunking."""

    def upstream_ended(self) -> None:
        """Handle the end of a complete body."""

    def upstream_lost(self, reason: str) -> None:
        """Handle the end of the connection before the end of the body."""


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
