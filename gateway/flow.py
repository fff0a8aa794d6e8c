"""What a relay reads from and what it writes to."""

from collections.abc import Iterable
from typing import Protocol


class Source(Protocol):
    """Where body bytes come from."""

    def pause(self) -> None:
        """Bring no more."""

    def resume(self) -> None:
        """Go on."""

    def detach(self) -> None:
        """Let go of the relay."""


class Sink(Protocol):
    """Takes bytes without waiting: a transport, or what gathers a body that is already whole."""

    def write(self, data: bytes) -> object:
        """Takes `data`."""

    def writelines(self, data: Iterable[bytes]) -> object:
        """Takes them all."""

    def is_closing(self) -> bool:
        """Tells whether it takes no more."""


class Connection(Sink, Protocol):
    """A transport to a client, or what stands before it."""

    def get_write_buffer_size(self) -> int:
        """Return how many bytes it has not sent yet."""

    def abort(self) -> object:
        """Close it at once, and drop what it has not sent."""
