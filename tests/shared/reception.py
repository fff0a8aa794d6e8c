"""The interpretation of the bytes that one subscriber gets, over all its connections."""

import json
import re
from typing import Any

from eventstream import HEARTBEAT, Framer, Parser, split_blocks
from tests.shared.event_log import number_of

_RETRY = re.compile(rb"retry: ?(\d+)\s+")
_AHEAD = re.compile(rb"\Aretry: (\d+)\n(?![\r\n])")
_FIRST_LINE_ENDS = re.compile(rb"\A[\r\n]+")


class Reception:
    """Keeps whole blocks unchanged; counts heartbeats, and removes and records `retry` lines before the first block."""

    def __init__(self, last_event_id: str = "") -> None:
        self.blocks: list[bytes] = []
        self.events: list[bytes] = []
        """The blocks that are events of the log."""
        self.numbers: list[int] = []
        """Their numbers."""
        self.gaps: list[dict[str, Any]] = []
        """The data of the gap events."""
        self.heartbeats = 0
        self.told_ahead: list[int] = []
        """The milliseconds of `retry` lines before the first block of a connection."""
        self._farewells: list[int] = []
        self._begun = False
        self._framer = Framer()
        self._parser = Parser(last_event_id)
        self._rest = bytearray()

    def __repr__(self) -> str:
        return f"<Reception blocks={len(self.blocks)} last_event_id={self.last_event_id!r} rest={self.rest[-100:]!r}>"

    @property
    def last_event_id(self) -> str:
        """Return the ID that the subscriber resumes with."""
        return self._parser.last_event_id

    @property
    def rest(self) -> bytes:
        """Return the unfinished block, without the gateway's lines before it; a bare `retry` line is none."""
        rest = self._without_heartbeats(bytes(self._rest) if self._begun else _AHEAD.sub(b"", bytes(self._rest)))[0]
        return b"" if _RETRY.fullmatch(rest) else rest

    @property
    def beats(self) -> int:
        """Return the number of heartbeats so far, including those that no block has followed yet."""
        return self.heartbeats + self._without_heartbeats(_AHEAD.sub(b"", bytes(self._rest)))[1]

    def open(self) -> None:
        """Start a new connection: the unfinished block of the previous one is discarded."""
        self._farewells = self._all_farewells()
        self.heartbeats = self.beats
        self._begun = False
        self._framer = Framer()
        self._rest.clear()

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the blocks that `piece` completes; the LF of a CRLF that was cut after its CR is none."""
        self._rest += piece
        whole = self._framer.feed(piece)
        del self._rest[: len(whole)]
        self._parser.feed(whole)
        blocks = []
        for item in split_blocks(whole):
            if not self._begun and (ahead := _AHEAD.match(item)):
                self.told_ahead.append(int(ahead[1]))
                item = item[ahead.end() :]
            self._begun = True
            block, beats = self._without_heartbeats(item)
            self.heartbeats += beats
            if block.strip(b"\r\n"):
                blocks.append(block)
                self._keep(block)
        return blocks

    def _keep(self, block: bytes) -> None:
        self.blocks.append(block)
        if (said := gap_of(block)) is not None:
            self.gaps.append(said)
        elif (number := number_of(block)) is not None:
            self.events.append(block)
            self.numbers.append(number)

    @staticmethod
    def _without_heartbeats(block: bytes) -> tuple[bytes, int]:
        block = _FIRST_LINE_ENDS.sub(b"", block)
        beats = 0
        while block.startswith(HEARTBEAT):
            block = _FIRST_LINE_ENDS.sub(b"", block.removeprefix(HEARTBEAT))
            beats += 1
        return block, beats

    def _all_farewells(self) -> list[int]:
        farewell = _RETRY.fullmatch(self._without_heartbeats(bytes(self._rest))[0])
        return [*self._farewells, int(farewell[1])] if farewell else self._farewells

    @property
    def retries(self) -> list[int]:
        """Return the milliseconds of the blocks that have only `retry`, and of bare `retry` lines at the end of a connection."""
        return [int(found[1]) for block in self.blocks if (found := _RETRY.fullmatch(block))] + self._all_farewells()


def is_gap(block: bytes) -> bool:
    return re.search(rb"(?:\A|[\r\n])event: gap[\r\n]", block) is not None


def gap_of(block: bytes) -> dict[str, Any] | None:
    """Return the data of a gap event, None for another block."""
    if not is_gap(block):
        return None
    [event] = Parser().feed(block)
    said: dict[str, Any] = json.loads(event.data)
    return said
