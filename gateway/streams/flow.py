"""The two ends of a relay: its source and its sink."""

from collections.abc import Iterable
from typing import Protocol


class Source(Protocol):
    """A source of body bytes."""

    def pause(self) -> None:
        """Pause reading."""

    def resume(self) -> None:
        """Resume reading."""

    def detach(self) -> None:
        """Detach from the relay."""


class Sink(Protocol):
    """A sink that accepts bytes without waiting: a transport, or a buffer for a complete body."""

    def write(self, data: bytes) -> object:
        """Write `data`."""

    def writelines(self, data: Iterable[bytes]) -> object:
        """Write all of `data`."""

    def is_closing(self) -> bool:
        """Return whether the sink is closing."""


class Connection(Sink, Protocol):
    """A transport to a client, or a throttle before it."""

    def get_write_buffer_size(self) -> int:
        """Return how many bytes it has not sent yet."""

    def abort(self) -> object:
        """Close it at once, and drop what it has not sent."""


def http_chunk(data: bytes) -> bytes:
    """Return an HTTP chunk (RFC 9112 section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)
