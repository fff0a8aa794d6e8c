"""What takes the body of an upstream's answer as it comes."""

from typing import Protocol

from aiohttp.streams import StreamReader


class Source(Protocol):
    """An upstream connection, as the receiver of its response's body sees it."""

    lost: BaseException | None
    """Why the connection failed; None while it has not, and behind a clean end."""

    def pause(self) -> None:
        """Stop reading: the kernel's window slows the upstream down."""

    def resume(self) -> None:
        """Read on."""

    def detach(self) -> None:
        """Forget the receiver."""


class Receiver(Protocol):
    """Takes what an upstream sends after its head."""

    bytes_out: int
    """Bytes that it has written."""

    @property
    def paused(self) -> bool:
        """Whether the upstream has to wait."""

    def attached(self, source: Source) -> None:
        """Take the connection whose bytes come from now on."""

    def feed(self, chunk: bytes) -> None:
        """Takes body bytes, HTTP chunking undone."""

    def upstream_ended(self) -> None:
        """The body is complete."""

    def upstream_lost(self, reason: str) -> None:
        """The connection ended before the body did."""


class Collecting(Protocol):
    """Collects what one read brought of a body."""

    body: list[bytes]
    body_ended: bool


class ReceivedBody(StreamReader):
    """A response's payload once it is attached: keeps nothing, passes all to its protocol."""

    __slots__ = ()
    _protocol: Collecting  # type: ignore[assignment]  # aiohttp's own protocol, which collects as well

    def feed_data(self, data: bytes, size: int = 0) -> bool:
        self._protocol.body.append(data)
        return False

    def begin_http_chunk_receiving(self) -> None:
        """HTTP chunks mean nothing to an event stream."""

    def end_http_chunk_receiving(self) -> None:
        """HTTP chunks mean nothing to an event stream."""

    def feed_eof(self) -> None:
        self._protocol.body_ended = True
        super().feed_eof()


def take_buffer(content: StreamReader) -> bytes:
    """Gives what the stream reader holds. `read_nowait` would run the parser again for each HTTP chunk, which may add more."""
    received = b"".join(content._buffer)
    content._buffer.clear()
    content._size = 0
    return received
