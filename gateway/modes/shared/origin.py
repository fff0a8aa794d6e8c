"""One upstream server, and the streams that wait for it while it is down."""

import asyncio
import itertools
import random
from typing import Protocol

FIRST_SECONDS = 0.25
LONGEST_SECONDS = 2.0
"""The time between two attempts at a server that is down: it doubles from the one to the other."""

_RELEASED = 4  # by each answer: 1,000 streams reconnect in five steps, and few bother a server that fails again
_JITTER_SECONDS = 0.1


class Waiting(Protocol):
    """A stream that waits for its upstream."""

    @property
    def wanted(self) -> bool:
        """Whether a subscriber waits for what comes."""

    def attempt_in(self, seconds: float) -> None:
        """Try again after `seconds`."""

    def pace_alone(self) -> None:
        """Try again at the pace of the server's `retry`."""


class Origin:
    """The streams that wait for one server. One at a time tries it for all, in turn.

    Each attempt that gets an answer lets some waiting streams reconnect, and each of these lets others do so.
    """

    def __init__(self) -> None:
        self._waiting: dict[Waiting, float] = {}  # the time of its failure, oldest first
        self._seconds = FIRST_SECONDS
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Origin waiting={len(self._waiting)} seconds={self._seconds}>"

    def wait(self, stream: Waiting) -> None:
        """Add a stream whose attempt has just failed."""
        now = asyncio.get_running_loop().time()
        self.leave(stream)
        self._waiting[stream] = now
        if self._timer is None:
            self._set_timer(max(self._due, now + FIRST_SECONDS))

    def leave(self, stream: Waiting) -> None:
        """Remove a stream that connects on its own or has ended."""
        self._waiting.pop(stream, None)

    def reached(self) -> None:
        """Release some streams: an attempt got an answer."""
        self._seconds = FIRST_SECONDS
        if not self._waiting:
            return
        now = asyncio.get_running_loop().time()
        for stream, failed_at in list(itertools.islice(self._waiting.items(), _RELEASED)):
            if failed_at <= now - FIRST_SECONDS:  # otherwise it fails although others get answers
                self.leave(stream)
                stream.attempt_in(random.uniform(0, _JITTER_SECONDS))
        self._set_timer(min(self._due, now + FIRST_SECONDS))

    def _set_timer(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = asyncio.get_running_loop().call_at(due, self._try_one)

    def _try_one(self) -> None:
        self._timer = None
        for stream in tuple(self._waiting):
            self.leave(stream)
            if stream.wanted:
                stream.attempt_in(0)
                break
            stream.pace_alone()
        self._due = asyncio.get_running_loop().time() + self._seconds
        self._seconds = min(2 * self._seconds, LONGEST_SECONDS)
        if self._waiting:
            self._set_timer(self._due)
