"""Compress closed segments and remove the oldest."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from service.storage.file_format import sync

from .segment import Segment, compress, list_segments

_log = structlog.get_logger()

_LOOK_SECONDS = 60.0  # the longest delay of a removal by age


@dataclass(frozen=True, slots=True)
class Retention:
    """The limits of what the log keeps; 0: no limit."""

    max_bytes: int = 0
    max_age_seconds: float = 0.0


def closed_segments(directory: Path) -> list[Segment]:
    """Return the segments that are final, oldest first: all but the newest."""
    return list_segments(directory)[:-1]


def compress_closed(directory: Path, stopped: threading.Event) -> int:
    """Compress the closed segments that are not compressed yet, and return their number. Raises OSError."""
    done = 0
    for segment in closed_segments(directory):
        if not segment.compressed and not stopped.is_set() and compress(segment, stopped) is not None:
            done += 1
    return done


def remove_old(directory: Path, retention: Retention, clock: Callable[[], float] = time.time) -> list[Segment]:
    """Remove closed segments beyond the limits, oldest first, and return them. Raises OSError."""
    closed = closed_segments(directory)
    states = {segment.path: segment.path.stat() for segment in list_segments(directory)}
    total = sum(state.st_size for state in states.values())
    removed: list[Segment] = []
    for segment in closed:
        state = states[segment.path]
        too_much = 0 < retention.max_bytes < total
        too_old = 0 < retention.max_age_seconds < clock() - state.st_mtime
        if not too_much and not too_old:
            break
        segment.path.unlink()
        total -= state.st_size
        removed.append(segment)
    if removed:
        sync(directory)
    return removed


class Upkeep:
    """Maintain a log directory beside its writer, in a thread."""

    def __init__(self, directory: Path, retention: Retention, due: asyncio.Event) -> None:
        self._directory = directory
        self._retention = retention
        self._due = due
        self._stopped = threading.Event()

    async def run(self) -> None:
        """Work at once, when it is due, and every minute, until `stop`."""
        while not self._stopped.is_set():
            self._due.clear()
            try:
                await asyncio.to_thread(self._work)
            except OSError as error:
                _log.warning("closed segments could not be compressed or removed; retrying later", reason=str(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._due.wait(), _LOOK_SECONDS)

    def stop(self) -> None:
        """Make `run` return soon; a running compression is cancelled and repeated at the next start."""
        self._stopped.set()
        self._due.set()

    def _work(self) -> None:
        compressed = compress_closed(self._directory, self._stopped)
        removed = remove_old(self._directory, self._retention)
        if compressed or removed:
            _log.info("segments compressed or removed", compressed=compressed, removed=len(removed))
