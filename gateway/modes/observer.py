"""What the modes report of requests and streams, for metrics and incidents."""

from typing import Protocol

LOST = "lost"
"""A shared stream's upstream was lost; the gateway reconnects."""
BACK = "back"
"""The upstream was reconnected."""
GAP = "gap"
"""Subscribers got a gap event: they may have missed events."""


class Reader(Protocol):
    """Reads event blocks from one upstream."""

    @property
    def blocks_received(self) -> int: ...

    @property
    def bytes_received(self) -> int: ...


class Observer:
    """Take reports of the modes, and ignore them: a subclass records what it overrides. No method is called for each event."""

    def requested(self, route: str, method: str) -> None:
        """Note a request to an upstream."""

    def reconnected(self, route: str) -> None:
        """Note a reconnection to an upstream that was lost."""

    def subscribed(self, route: str, begin: str) -> None:
        """Note a subscription to a shared or kept stream; `begin` says where: live, history, catch-up or gap."""

    def resumed(self, route: str, convention: str, replayed_bytes: int) -> None:
        """Note a resumption of a kept answer on its route's own path, by a preset's convention, an `id`, a `name` or a `retry`."""

    def stopped(self, route: str) -> None:
        """Note that a client stopped a kept answer."""

    def superseded(self, route: str) -> None:
        """Note that a newer answer took the name of one that still runs."""

    def began_reading(self, reader: Reader, route: str) -> None:
        """Count from now on what `reader` receives."""

    def ended_reading(self, reader: Reader) -> None:
        """Note that `reader` receives no more. No effect if it is unknown."""

    def note_latency(self, seconds: float) -> None:
        """Note the time from the arrival of the upstream's bytes to their write, in a sample."""

    def note_incident(self, kind: str, route: str, target: str, detail: str) -> None:
        """Note an incident of a stream: LOST, BACK or GAP."""
