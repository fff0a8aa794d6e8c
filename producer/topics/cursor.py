"""The position of one subscriber, and the next data for it: events in order, and reports of missing ones."""

import json
from dataclasses import dataclass
from typing import Literal

from eventstream import encode

from ..log.event_log import EventLog, format_event_id, parse_event_id
from ..log.runs import Piece
from .feeds import Feed, Reading

GapReason = Literal["not-retained", "unknown-epoch", "malformed-id", "beyond-end"]
"""Why the requested events are unavailable: retention or DELETE removed them; the id is of another log, malformed, or not yet in use."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Events that a subscriber may have missed."""

    asked: str
    """The id or time after which it asked for all events."""
    reason: GapReason


@dataclass(frozen=True, slots=True)
class Start:
    """The position where a subscriber begins."""

    after: int
    asked: str
    """The id or time from the request; empty when it asked for all existing events."""
    gap: Gap | None = None
    """A gap that is known before any read."""


def start_after_id(log: EventLog, text: str) -> Start:
    """Return where to resume after the event with the id `text`: at the first retained event if the id is not of this log."""
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
    """The event block that reports a gap."""

    body: bytes
    reason: GapReason


class Cursor:
    """Moves through the events of a feed, up to and including the offset `upto` or without end, over at most `limit` of them."""

    def __init__(self, feed: Feed, epoch: str, start: Start, *, upto: int | None = None, limit: int | None = None) -> None:
        self.after = start.after
        """Every matching event up to this offset was returned, or is covered by a returned gap."""
        self._feed = feed
        self._epoch = epoch
        self._asked = start.asked or format_event_id(epoch, start.after)
        self._takes_what_there_is = not start.asked
        self._gap = start.gap
        self._gone_through = 0  # the end of the gap that was reported, or will be with `_gap`
        self._upto = upto
        self._left = limit
        self._reading: Reading | None = None

    def __repr__(self) -> str:
        return f"<Cursor after={self.after} upto={self._upto} left={self._left}>"

    @property
    def ended(self) -> bool:
        """Whether no more events will come."""
        return self._left == 0 or (self._upto is not None and self.after >= self._upto and self._gap is None)

    async def advance(self) -> Piece | GapBlock | None:
        """Return the next events, or the gap before them, or None when there is nothing now. Raises LogError."""
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
        """Return the gap's block, with an id that returns the same events again to a client that resumes from it."""
        self._gap = None
        resume = self.after if first is None else first - 1
        retained = None if first is None else format_event_id(self._epoch, first)
        data = {"asked": gap.asked, "first_retained": retained, "reason": gap.reason}
        if self._gone_through > resume:  # one topic has lost more than another
            data["gone_through"] = format_event_id(self._epoch, self._gone_through)
        self._asked = format_event_id(self._epoch, resume)
        return GapBlock(encode(json.dumps(data), type="gap", id=self._asked), gap.reason)

    def _notice_gone(self, reading: Reading) -> None:
        """Prepare to report removed events, unless they were reported: a gap says up to where events may be missing."""
        gone = reading.gone_through
        if gone <= max(self.after, self._gone_through):
            return
        if self._takes_what_there_is:
            first = reading.run.piece(self.after, max_events=1)
            if first is None or first.first > gone:
                return  # the removed events came before all existing ones
        self._gone_through = gone
        if self._gap is None:
            self._gap = Gap(self._asked, "not-retained")
