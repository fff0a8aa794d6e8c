"""Where one subscriber is, and what comes next for it: events in their order, and a word on those that are gone."""

import json
from dataclasses import dataclass
from typing import Literal

from eventstream import encode

from ..log.event_ids import format_event_id, parse_event_id
from ..log.event_log import EventLog
from ..log.runs import Piece
from .feeds import Feed, Reading

GapReason = Literal["not-retained", "unknown-epoch", "malformed-id", "beyond-end"]
"""Why what was asked for cannot be had: retention or DELETE took it; the id is of another log; it is no id; no event has it yet."""


@dataclass(frozen=True, slots=True)
class Gap:
    """What a subscriber may have missed."""

    asked: str
    """The id or time after which it wanted everything."""
    reason: GapReason


@dataclass(frozen=True, slots=True)
class Start:
    """Where a subscriber begins."""

    after: int
    asked: str
    """How it said so; empty when it wanted what there is, from the first."""
    gap: Gap | None = None
    """What is known to be missing before anything is read."""


def start_after_id(log: EventLog, text: str) -> Start:
    """Gives where to go on for a client whose last event had the id `text`: at the first retained event when this log never gave it."""
    found = parse_event_id(text)
    if found is None:
        return Start(0, text, Gap(text, "malformed-id"))
    epoch, offset = found
    if epoch != log.epoch:
        return Start(0, text, Gap(text, "unknown-epoch"))
    if offset > log.last:
        return Start(0, text, Gap(text, "beyond-end"))
    return Start(offset, text)


@dataclass(frozen=True, slots=True)
class GapBlock:
    """The event block that tells of a gap."""

    body: bytes
    reason: GapReason


class Cursor:
    """Moves through the events of a feed, up to and with the offset `upto` or for ever, over at most `limit` of them."""

    def __init__(self, feed: Feed, epoch: str, start: Start, *, upto: int | None = None, limit: int | None = None) -> None:
        self.after = start.after
        """Everything up to this offset that matches was given, or is in a gap that was."""
        self._feed = feed
        self._epoch = epoch
        self._asked = start.asked or format_event_id(epoch, start.after)
        self._takes_what_there_is = not start.asked
        self._gap = start.gap
        self._gone_through = 0  # what was told, or will be with `_gap`
        self._upto = upto
        self._left = limit
        self._reading: Reading | None = None

    def __repr__(self) -> str:
        return f"<Cursor after={self.after} upto={self._upto} left={self._left}>"

    @property
    def ended(self) -> bool:
        """Whether nothing will come any more."""
        return self._left == 0 or (self._upto is not None and self.after >= self._upto and self._gap is None)

    async def advance(self) -> Piece | GapBlock | None:
        """Gives what comes next: events, or the word on a gap before them, or None when there is nothing now. Raises LogError."""
        while not self.ended:
            if self._reading is None:
                if self.after >= self._feed.start:
                    return self._take_newest()
                self._reading = await self._feed.read(self.after)
                self._notice_gone(self._reading)
            piece = self._reading.run.piece(self.after, self._upto, self._left)
            if piece is not None:
                return self._take(piece)
            self.after = max(self.after, self._reading.through)
            self._reading = None
        return None

    def _take_newest(self) -> Piece | GapBlock | None:
        piece = self._feed.piece(self.after, self._upto, self._left)
        if piece is not None:
            return self._take(piece)
        if self._gap is not None:
            return self._tell(self._gap, None)
        if self._upto is not None:
            self.after = max(self.after, self._upto)
        return None

    def _take(self, piece: Piece) -> Piece | GapBlock:
        if self._gap is not None:
            return self._tell(self._gap, piece.first)
        self.after = piece.last
        self._asked = format_event_id(self._epoch, piece.last)
        self._takes_what_there_is = False
        if self._left is not None:
            self._left -= piece.events
        return piece

    def _tell(self, gap: Gap, first: int | None) -> GapBlock:
        """Gives the block, whose id is one that gives the same events again to who resumes from it."""
        self._gap = None
        resume = self.after if first is None else first - 1
        retained = None if first is None else format_event_id(self._epoch, first)
        data = {"asked": gap.asked, "first_retained": retained, "reason": gap.reason}
        if self._gone_through > resume:  # of one topic more is gone than of another
            data["gone_through"] = format_event_id(self._epoch, self._gone_through)
        self._asked = format_event_id(self._epoch, resume)
        return GapBlock(encode(json.dumps(data), type="gap", id=self._asked), gap.reason)

    def _notice_gone(self, reading: Reading) -> None:
        """Prepares to tell of what is gone, unless it was told: a gap says up to where something may be missing."""
        gone = reading.gone_through
        if gone <= max(self.after, self._gone_through):
            return
        if self._takes_what_there_is:
            first = reading.run.piece(self.after, max_events=1)
            if first is None or first.first > gone:
                return  # what is gone was before everything that there is
        self._gone_through = gone
        if self._gap is None:
            self._gap = Gap(self._asked, "not-retained")
