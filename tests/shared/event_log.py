"""A log of numbered events, as bytes that no two events share."""

import asyncio
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass

LINE_ENDS = {"LF": b"\n", "CRLF": b"\r\n", "CR": b"\r"}

_NUMBER = re.compile(rb"(?:\A|[\r\n])(?:id|data): (\d+)[ \r\n]")  # an ID of the gateway's own has more after its digits


@dataclass(frozen=True)
class Style:
    """The form of a log's events."""

    ids: bool = True
    line_ends: tuple[bytes, ...] = (b"\n",)
    asides: float = 0.0
    """The share of the events with a comment block before them."""
    without_data: float = 0.0
    """The share of the events that are only an ID."""
    several_lines: float = 0.0
    """The share of the events with an event type, an unknown field and many lines."""
    large: float = 0.0
    """The share of the events with tens of kilobytes."""


PLAIN = Style()
WITHOUT_IDS = Style(ids=False)
WILD = Style(line_ends=tuple(LINE_ENDS.values()), asides=0.1, without_data=0.05, several_lines=0.2, large=0.01)


class EventLog:
    """Numbers its events from 1; event n is `blocks[n - 1]`, and its ID, if it has one, is its number."""

    def __init__(self, style: Style = PLAIN, rng: random.Random | None = None) -> None:
        self.blocks: list[bytes] = []
        self.asides: dict[int, bytes] = {}
        """By number, the block without data before that event. It belongs to no ID, so it may be repeated or lost."""
        self.style = style
        self._rng = rng or random.Random(1)
        self._news = asyncio.Event()

    def __len__(self) -> int:
        return len(self.blocks)

    def publish(self, count: int = 1) -> list[bytes]:
        """Append events and return their blocks."""
        for number in range(len(self.blocks) + 1, len(self.blocks) + count + 1):
            if self._rng.random() < self.style.asides:
                self.asides[number] = b": in front of %d" % number + self._blank_line()
            self.blocks.append(self._block(number))
        self._news.set()
        self._news = asyncio.Event()
        return self.blocks[len(self.blocks) - count :]

    async def news(self, number: int) -> None:
        """Return when there are more than `number` events."""
        while len(self.blocks) <= number:
            await self._news.wait()

    def wire(self, after: int, until: int | None = None) -> bytes:
        """Return the bytes of the events after number `after` up to `until`, and of the asides before them."""
        last = len(self.blocks) if until is None else until
        if not self.asides:
            return b"".join(self.blocks[after:last])
        return b"".join(self.asides.get(number, b"") + self.blocks[number - 1] for number in range(after + 1, last + 1))

    def _block(self, number: int) -> bytes:
        style, rng = self.style, self._rng
        identity = [b"id: %d" % number] if style.ids else []
        if style.ids and rng.random() < style.without_data:
            return self._joined(identity)
        body = b"data: %d %s" % (number, b"%x" % rng.getrandbits(rng.randint(1, 200)))
        if rng.random() < style.several_lines:
            lines = [b"data:" + b"." * rng.randint(0, 40) for _ in range(rng.randint(1, 12))]
            return self._joined(
                [b": of %d" % number, *identity, b"event: several", b"unknown: field", body, *lines, "data: 七夕 ✓".encode()]
            )
        if rng.random() < style.large:
            body += b" " + b"L" * rng.randint(20_000, 60_000)
        return self._joined([*identity, body])

    def _joined(self, lines: Iterable[bytes]) -> bytes:
        end = self._rng.choice(self.style.line_ends)
        return b"".join(line + end for line in lines) + end

    def _blank_line(self) -> bytes:
        return self._rng.choice(self.style.line_ends) * 2


def number_of(block: bytes) -> int | None:
    """Return the number of an event's block, None for another block."""
    found = _NUMBER.search(block)
    return int(found[1]) if found else None
