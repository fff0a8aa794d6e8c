"""Prove that a subscriber got every event once, in order, byte for byte, or was told exactly which are missing."""

import re
from dataclasses import dataclass, field
from typing import Any

from tests.shared.event_log import EventLog, number_of
from tests.shared.reception import gap_of

_ID = re.compile(rb"(?:\A|[\r\n])id: ([^\r\n]*)")
_ASSIGNED = re.compile(rb"id: [0-9a-f]+-\d+\n(?=[\r\n]+\Z)")


@dataclass
class Proof:
    """Takes the blocks that one subscriber received, in sequence, and raises AssertionError at the first wrong one."""

    log: EventLog
    name: str = "subscriber"
    begin: int | None = None
    """The number after which the stream begins; None: anywhere."""
    gaps_allowed: bool = False
    assigned: bool = False
    """Whether each block begins with an ID that the gateway assigned."""
    received: int = 0
    missed: set[int] = field(default_factory=set)
    """Numbers that were missing where a gap event said so."""
    _at: int | None = None
    _id: str | None = None
    _told: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        self._at = self.begin
        self._id = str(self.begin) if self.begin else None

    @property
    def at(self) -> int:
        """The number of the newest event, 0 before the first."""
        return self._at or 0

    def take(self, block: bytes) -> None:
        if (gap := gap_of(block)) is not None:
            self._take_gap(gap)
        elif (number := number_of(block)) is not None:
            self._take_event(number, block)
        elif block.startswith(b": in front of "):
            self._take_aside(block)
        else:
            assert block.startswith(b"retry: "), f"{self.name}: after event {self._at} came a block that was never sent: {_short(block)}"

    def _take_gap(self, gap: dict[str, Any]) -> None:
        before_any = self._at is None and gap["asked"] is None  # the upstream was lost before it had an ID to resume from
        assert self.gaps_allowed or before_any, f"{self.name}: after event {self._at} came a gap event: {gap}"
        assert gap["reason"], f"{self.name}: a gap event without a reason: {gap}"
        if gap["asked"] is not None:
            assert gap["asked"] == self._id, f"{self.name}: after event {self._at}, whose ID is {self._id}, a gap event says {gap}"
        self._told = gap

    def _take_event(self, number: int, block: bytes) -> None:
        id = _ID.search(block)
        if self.assigned:
            assert _ASSIGNED.search(block), f"{self.name}: event {number} has no ID of the gateway: {_short(block)}"
            block = _ASSIGNED.sub(b"", block)
        assert number <= len(self.log), f"{self.name}: event {number} was never published"
        expected = self.log.blocks[number - 1]
        assert _same(block, expected), f"{self.name}: event {number} is {_short(block)}, was published as {_short(expected)}"
        told, self._told = self._told, None
        if told is not None:
            if told["first_retained"] is not None:
                assert id, f"{self.name}: after {told} came event {number} without an ID"
                assert told["first_retained"] == id[1].decode(), f"{self.name}: behind {told} came event {number}"
            assert number > self.at, f"{self.name}: event {number} came behind {self._at}, after {told}"
            if self._at is not None:
                self.missed.update(range(self._at + 1, number))
        elif self._at is not None:
            wrong = "came again" if number <= self._at else f"came when {self._at + 1} was due"
            assert number == self._at + 1, f"{self.name}: event {number} {wrong}"
        self._at = number
        self._id = id[1].decode() if id else self._id
        self.received += 1

    def _take_aside(self, block: bytes) -> None:
        number = int(block.split()[-1])
        expected = self.log.asides.get(number, b"")
        assert _same(block, expected), f"{self.name}: {_short(block)} was published as {_short(expected)}"
        if self._at is not None and self._told is None:
            assert number <= self._at + 1, f"{self.name}: {_short(block)} came after event {self._at}"


def _same(block: bytes, expected: bytes) -> bool:
    """Whether the bytes are those that were published. After a CR that ends a block, an LF may arrive later and alone. It then follows the
    block: for current subscribers, and for one that already had the block from another connection."""
    if block + b"\n" == expected:
        return block[-1:] == b"\r"
    return block == expected or (block == expected + b"\n" and expected[-2:] == b"\r\n")


def _short(block: bytes) -> str:
    return repr(block) if len(block) <= 400 else f"{block[:200]!r}…{block[-200:]!r} ({len(block)} bytes)"
