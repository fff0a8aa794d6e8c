"""Subscribers with the same cursor in one history."""

from collections.abc import Callable, Sequence

from .flow import http_chunk
from .heartbeats import Shown, shows_id
from .history import History
from .stamping import place_ahead
from .subscriber import Kind, Subscriber
from .wheel import TimerWheel

_BLOCKS, _ID = Shown.BLOCKS, Shown.ID

MOST_MEMBERS = 1000
"""More would hold up the event loop: a write takes about 15 µs."""


class Cohort:
    """Write the same bytes object to all members once per turn of the event loop, with no other work per member.

    The cohort does not check a member's buffer. A member whose transport reports a full buffer leaves (`Subscriber.pause`).
    """

    __slots__ = (
        "_heartbeat_ticks",
        "_history",
        "_last_write",
        "_wheel",
        "_writes",
        "ahead",
        "bytes",
        "chunked",
        "cursor",
        "heartbeats",
        "shown",
        "slot",
    )

    def __init__(self, history: History, wheel: TimerWheel, heartbeat_ticks: int) -> None:
        self._history = history
        self._wheel = wheel
        self._heartbeat_ticks = heartbeat_ticks
        self._writes: dict[Subscriber, Callable[[bytes], object]] = {}
        self._last_write = 0
        self.chunked = True
        """Whether HTTP chunks are made for its members."""
        self.shown = Shown.BLOCKS
        """What the members' clients have received so far."""
        self.ahead = b""
        """A line to place before their next block with data, or nothing."""
        self.cursor = history.end
        self.bytes = 0
        """Bytes of blocks and heartbeats sent to a member that joined at the beginning."""
        self.heartbeats = 0
        self.slot = 0

    def __repr__(self) -> str:
        return f"<Cohort members={len(self._writes)} cursor={self.cursor}>"

    def __len__(self) -> int:
        return len(self._writes)

    @property
    def kind(self) -> Kind:
        """The kind of all its members."""
        return self.chunked, self.shown, self.ahead

    @kind.setter
    def kind(self, kind: Kind) -> None:
        self.chunked, self.shown, self.ahead = kind

    @property
    def members(self) -> tuple[Subscriber, ...]:
        """Its current members."""
        return tuple(self._writes)

    def add(self, subscriber: Subscriber) -> None:
        """Add a subscriber whose cursor equals the cohort's."""
        if not self.slot and self._heartbeat_ticks:
            self._wheel.add(self, self._wheel.now + self._heartbeat_ticks)
            self._last_write = self._wheel.now
        self._writes[subscriber] = subscriber.write_to_transport

    def remove(self, subscriber: Subscriber) -> None:
        """Remove a member."""
        del self._writes[subscriber]
        if not self._writes and self.slot:
            self._wheel.remove(self)
            self.slot = 0

    def flush(self) -> None:
        """Send the blocks after the cursor, about `READ_BYTES` at most."""
        data, self.cursor = self._history.read(self.cursor, self._history.end)
        if self.ahead:
            data, self.ahead = place_ahead(self.ahead, data)
        self._write_blocks(data)

    def send(self, blocks: Sequence[bytes]) -> None:
        """Send the newest blocks, which must be all blocks after the cursor."""
        self.cursor += len(blocks)
        self._write_blocks(b"".join(blocks))

    def fire(self, now: int) -> int:
        """Send a heartbeat if one is due. Return the tick of the next check."""
        if now - self._last_write >= self._heartbeat_ticks:
            self.heartbeats += 1
            self._write(self.shown.heartbeat)
        return self._last_write + self._heartbeat_ticks if self._writes else 0

    def _write_blocks(self, data: bytes) -> None:
        if self.shown is not _ID and (self.shown is not _BLOCKS or shows_id(data)):
            self.shown = self.shown.then(data)
        self._write(data)

    def _write(self, data: bytes) -> None:
        self._last_write = self._wheel.now
        self.bytes += len(data)
        framed = http_chunk(data) if self.chunked else data
        for write in tuple(self._writes.values()):  # `write` removes a member whose buffer fills up
            write(framed)
