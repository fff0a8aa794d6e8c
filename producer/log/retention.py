"""The limits of a log, and the task that removes the rest in small steps."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog

from .event_log import LogError


@dataclass(frozen=True, slots=True)
class Retention:
    """The limits of the log over all topics; 0 means no limit. The oldest events are removed first."""

    max_age_seconds: float = 0
    max_events: int = 0
    max_bytes: int = 0
    """Bytes of the blocks; the file is larger, by about half for short events."""

    def excess(self, count: int, size: int) -> tuple[int, int]:
        """Return how many events and bytes are too many when there are `count` events of `size` bytes."""
        return (
            max(0, count - self.max_events) if self.max_events else 0,
            max(0, size - self.max_bytes) if self.max_bytes else 0,
        )

    def oldest_ms(self, now_ms: int) -> int:
        """Return the time before which events are too old, in Unix milliseconds."""
        return now_ms - int(self.max_age_seconds * 1000) if self.max_age_seconds else 0


async def upkeep(steps: Sequence[Callable[[], Awaitable[object]]], *, pause_seconds: float) -> None:
    """Every `pause_seconds`, repeat each step until it returns a false value. A LogError is logged, and retried after the pause."""
    failure = ""
    while True:
        await asyncio.sleep(pause_seconds)
        try:
            for step in steps:
                while await step():
                    await asyncio.sleep(0)
            failure = ""
        except LogError as error:
            if str(error) != failure:
                failure = str(error)
                structlog.get_logger().warning("event log upkeep failed", reason=failure)
