"""The event log of an app that was given none."""

from collections.abc import Callable, Collection, Sequence

from .event_log import Appended, Batch, IdempotencyKey, LogError, Stored, Topic


class ClosedLog:
    """An EventLog that has nothing and takes nothing: for an app that is only described, or only streams text."""

    def __init__(self) -> None:
        self.epoch = "closed"
        self.last = 0
        self.topics: dict[str, Topic] = {}

    def __repr__(self) -> str:
        return "<ClosedLog>"

    def watch(self, announce: Callable[[Sequence[Stored]], None]) -> None:
        """Nothing will be announced."""

    async def append(self, topic: str, blocks: Sequence[bytes], key: IdempotencyKey | None = None) -> Appended:
        """Raises LogError."""
        raise LogError("no event log is open")

    async def read(
        self, after: int, upto: int, topics: Collection[str] | None = None, *, max_events: int = 1000, max_bytes: int = 256 * 1024
    ) -> Batch:
        """Gives nothing."""
        return Batch((), upto, 0)

    async def get(self, offset: int) -> Stored | None:
        """Gives None."""
        return None

    async def first(self, topics: Collection[str] | None = None) -> int:
        """Gives 0."""
        return 0

    async def offset_before(self, time_ms: int) -> int:
        """Gives 0."""
        return 0

    async def drop(self, topic: str) -> int:
        """Gives 0."""
        return 0

    async def trim(self) -> int:
        """Gives 0."""
        return 0

    async def close(self) -> None:
        """Has nothing to let go of."""
