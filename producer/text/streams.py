"""A text as a stream of event blocks: the events, and when they are sent."""

import re
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import regex  # type: ignore[import-untyped]

from eventstream import HEARTBEAT, HEARTBEAT_BLOCK, encode

from ..web.drain import Drain, encode_last_retry
from ..web.meters import Meters, Reason, StreamCount

_GRAPHEME = regex.compile(r"\X")
_WORD = re.compile(r"\s*\S+\s*|\s+")
_LINE_END = re.compile(r"\r\n|\n|\r")


class Split(StrEnum):
    """Where to cut a text."""

    GRAPHEME = "grapheme"
    WORD = "word"
    LINE = "line"


def split_text(text: str, split: Split) -> list[str]:
    """Return the pieces of `text`, in order.

    - grapheme: user-perceived characters (extended grapheme clusters, Unicode Standard Annex 29). Joined, they are the text.
    - word: runs without blanks, each with the blanks that follow it, the first also with those before it. Joined, they are the text.
      A text without blanks, such as Chinese, is one word.
    - line: the text between line ends (CRLF, LF, CR; the line ends of an event stream). Joined by LF, they are the text.

    An event stream cannot carry a CR in data: a reader of the events gets each CRLF and CR in the pieces as LF.
    """
    match split:
        case Split.GRAPHEME:
            return [match.group() for match in _GRAPHEME.finditer(text)]
        case Split.WORD:
            return _WORD.findall(text)
        case Split.LINE:
            return _LINE_END.split(text)


@dataclass(frozen=True, slots=True)
class TextStream:
    """The events of a text: a pure function of these values, so that any process can continue where another one stopped.

    Events are numbered from 1 to `last`; `pieces` are streamed `repeat` times. With `ids` each event carries its number as its id.
    """

    pieces: Sequence[str]
    repeat: int
    retry_ms: int
    ids: bool

    @property
    def last(self) -> int:
        """The number of the last event."""
        return len(self.pieces) * self.repeat

    def blocks(self, after: int = 0) -> Iterator[bytes]:
        """Yield the blocks of the events after event number `after`."""
        for number in range(after + 1, self.last + 1):
            piece = self.pieces[(number - 1) % len(self.pieces)]
            yield encode(piece, type="message", id=str(number) if self.ids else None, retry=self.retry_ms)


@dataclass(frozen=True, slots=True)
class Delivery:
    """How streams are sent; one for all streams of an app."""

    meters: Meters
    drain: Drain
    heartbeat_seconds: float
    retry_ms: int

    async def send(self, blocks: Iterator[bytes], *, shown_id: bool, interval_seconds: float, route: str) -> AsyncGenerator[bytes, None]:
        """Yield each block when it is due, and a heartbeat after each `heartbeat_seconds` in between.

        The first block is sent at once. `shown_id` says whether it has an id, or the client brought one from an earlier connection.
        Each yielded value is a whole block or a whole heartbeat, so that nothing can be inserted into a block. When the drain begins,
        a jittered `retry` line is the last. Closing the generator means that the client left.
        """
        heartbeat = HEARTBEAT if shown_id else HEARTBEAT_BLOCK
        count = StreamCount(self.meters, route)
        reason: Reason = "left"
        pauses: list[float] = []
        try:
            for block in blocks:
                for index, pause in enumerate(pauses):
                    if index:
                        yield heartbeat
                        count.add(heartbeat)
                    if await self.drain.wait(pause):
                        break
                if self.drain.begun:
                    last_retry = encode_last_retry(self.retry_ms)
                    yield last_retry
                    count.add(last_retry)
                    reason = "drained"
                    return
                yield block
                count.add(block, events=1)
                pauses = pauses or list(_cut(interval_seconds, self.heartbeat_seconds))
            reason = "completed"
        finally:
            count.close(reason)


def _cut(seconds: float, longest: float) -> Iterator[float]:
    """Yield pauses that add up to `seconds`, none longer than `longest`; at least one."""
    while seconds > longest:
        yield longest
        seconds -= longest
    yield seconds
