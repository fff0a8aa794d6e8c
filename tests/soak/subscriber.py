"""A subscriber that leaves and comes back, and sees to it that nothing is missing and nothing comes twice."""

import asyncio
import contextlib
import json
import random
from dataclasses import dataclass

from eventstream import Event
from eventstream.client import EventSource


@dataclass(slots=True)
class Sequence:
    """What has come of one log: IDs go up, each publisher counts by one, and where something is missing a gap says so."""

    name: str
    last_id: str = ""
    events: int = 0
    gaps: int = 0
    _newest: dict[str, int] | None = None
    """The number of each publisher's newest event; None behind a gap: whichever comes next is right."""

    def take(self, event: Event) -> None:
        """Raises AssertionError when `event` is not what had to come."""
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
    """Gives the number behind the epoch, 0 for no ID."""
    return int(id.rpartition("-")[2] or 0)


async def follow(url: str, sequence: Sequence, chance: random.Random, longest_absence: float, stopping: asyncio.Event) -> None:
    """Follows `url` again and again, for a while each time, from the last ID on, until `stopping`."""
    while not stopping.is_set():
        async with EventSource(url, last_event_id=sequence.last_id, read_timeout_seconds=60) as source:
            with contextlib.suppress(TimeoutError):  # it leaves, in the middle of whatever is being sent
                async with asyncio.timeout(chance.uniform(0.1, 3.0)):
                    async for event in source:
                        sequence.take(event)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(chance.uniform(0, longest_absence)):
                await stopping.wait()
