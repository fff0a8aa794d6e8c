"""A subscriber that disconnects and resumes, and checks that no event is missing or repeated."""

import asyncio
import contextlib
import json
import random
from dataclasses import dataclass

from eventstream import Event
from eventstream.client import EventSource


@dataclass(slots=True)
class Sequence:
    """The events received of one log: IDs go up, each publisher counts by one, and a gap covers every missing event."""

    name: str
    last_id: str = ""
    events: int = 0
    gaps: int = 0
    _newest: dict[str, int] | None = None
    """The number of each publisher's newest event; None after a gap, when any next number is right."""

    def take(self, event: Event) -> None:
        """Raise AssertionError when `event` is not the expected one."""
        assert event.id is not None, f"{self.name}: no ID: {event}"
        if event.type == "gap":
            told = json.loads(event.data)
            assert told["asked"] == self.last_id, f"{self.name}: {told}, the last ID was {self.last_id}"
            self.gaps += 1
            self._newest = {}
        else:
            self._take_numbered(event)
        assert offset(event.last_event_id) >= offset(self.last_id), f"{self.name}: {event} after {self.last_id}"
        self.last_id = event.last_event_id

    def _take_numbered(self, event: Event) -> None:
        publisher, _, text = event.data.partition(" ")
        number = int(text.partition(" ")[0])
        if self._newest is None:
            self._newest = {}
        known = self._newest.get(publisher)
        assert known is None or number == known + 1, f"{self.name}: {publisher} {number} after {known}, last ID {self.last_id}"
        assert event.id != self.last_id, f"{self.name}: {event.id} twice"
        self._newest[publisher] = number
        self.events += 1


def offset(id: str) -> int:
    """Return the number after the epoch, 0 for no ID."""
    return int(id.rpartition("-")[2] or 0)


async def follow(url: str, sequence: Sequence, chance: random.Random, longest_absence: float, stopping: asyncio.Event) -> None:
    """Follow `url` repeatedly, for a while each time, from the last ID on, until `stopping`."""
    while not stopping.is_set():
        async with EventSource(url, last_event_id=sequence.last_id, read_timeout_seconds=60) as source:
            with contextlib.suppress(TimeoutError):  # it disconnects in the middle of whatever is being sent
                async with asyncio.timeout(chance.uniform(0.1, 3.0)):
                    async for event in source:
                        sequence.take(event)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(chance.uniform(0, longest_absence)):
                await stopping.wait()
