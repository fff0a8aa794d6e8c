"""The event log of an app that was given none."""

from collections.abc import Callable, Collection, Sequence

from .event_log import Appended, Batch, IdempotencyKey, LogError, Stored, Topic


class ClosedLog:
    """An EventLog without events that accepts none: for an app that is only described, or only streams text."""

    def __init__(self) -> None:
        self.epoch = "closed"
        self.last = 0
        self.topics: dict[str, Topic] = {}

    def __repr__(self) -> str:
        return "<ClosedLog>"

    def watch(self, announce: Callable[[Sequence[Stored]], None]) -> None:
        """Do nothing: no event will be announced."""

    async def append(self, topic: str, blocks: Sequence[bytes], key: IdempotencyKey | None = None) -> Appended:
        """Raise LogError."""
        raise LogError("no event log is open")

    async def read(
        self, after: int, upto: int, topics: Collection[str] | None = None, *, max_events: int = 1000, max_bytes: int = 256 * 1024
    ) -> Batch:
        """Return nothing."""
        return Batch((), upto, 0)

    async def get(self, offset: int) -> Stored | None:
        """Return None."""
        return None

    async def first(self, topics: Collection[str] | None = None) -> int:
        """Return 0."""
        return 0

    async def offset_before(self, time_ms: int) -> int:
        """Return 0."""
        return 0

    async def drop(self, topic: str) -> int:
        """Return 0."""
        return 0

    async def trim(self) -> int:
        """Return 0."""
        return 0

    async def close(self) -> None:
        """Do nothing."""
