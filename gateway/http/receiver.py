"""Receive the body of an upstream's answer as it arrives."""

from typing import Protocol

CLOSED_EARLY = "connection closed before the end of the response"
"""Why an answer is lost whose connection was closed in order."""


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
