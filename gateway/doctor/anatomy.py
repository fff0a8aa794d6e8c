"""Dissect the body of an event stream into blocks, comments and clumps, each with its time of arrival."""

import bisect
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from eventstream import DEFAULT_MAX_BLOCK_BYTES, BlockTooLarge, Event, Framer, Parser, split_blocks

from .observation import Arrival

CLUMP_PAUSE_SECONDS = 0.05
"""Longest pause within a clump: longer than a delayed acknowledgement, shorter than a reader notices."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
FIELDS = ("data", "event", "id", "retry")
_AHEAD = re.compile(rb":|retry:")
_SAMPLE_BYTES = 4096  # enough of an unfinished block to classify it; scanning all of it at every arrival would take quadratic time


@dataclass(frozen=True, slots=True)
class Block:
    """One event block."""

    raw: bytes
    offset: int
    seconds: float
    """Time at which the block was complete."""
    event: Event | None

    def lines(self) -> list[bytes]:
        """Return the lines without line ends and blank lines."""
        return [line for line in self.raw.splitlines() if line]

    def names(self) -> list[str]:
        """Return the field names in order, without comments."""
        return [line.partition(b":")[0].decode("utf-8", "replace") for line in self.lines() if line[:1] != b":"]


@dataclass(frozen=True, slots=True)
class Comment:
    """One comment line."""

    text: bytes
    seconds: float
    alone: bool
    """Whether the block has only comments, and so no event."""
    early: bool
    """Whether the comment arrived before the rest of its block."""


@dataclass(slots=True)
class Clump:
    """Bytes that arrived with hardly a pause."""

    begin: float
    end: float
    size: int = 0
    blocks: int = 0
    inside: bool = False
    """Whether the clump ends inside a block. Comments and `retry` ahead of the next block do not count."""


@dataclass(slots=True)
class Anatomy:
    """The parts of a body."""

    blocks: list[Block] = field(default_factory=list)
    comments: list[Comment] = field(default_factory=list)
    clumps: list[Clump] = field(default_factory=list)
    body: bytes = b""
    begins_with_byte_order_mark: bool = False
    unfinished: bytes = b""
    """Bytes after the last block."""
    too_large: BlockTooLarge | None = None
    """A block beyond the limit. Bytes after it are ignored."""
    reconnection_time: int | None = None
    last_event_id: str = ""

    @property
    def events(self) -> list[Block]:
        """The blocks that have an event."""
        return [block for block in self.blocks if block.event is not None]


def dissect(arrivals: Sequence[Arrival], max_block_bytes: int = DEFAULT_MAX_BLOCK_BYTES) -> Anatomy:
    """Dissect a body. Never raises, whatever the input."""
    anatomy = Anatomy(body=b"".join(arrival.data for arrival in arrivals))
    anatomy.begins_with_byte_order_mark = anatomy.body.startswith(BYTE_ORDER_MARK)
    framer, parser = Framer(max_block_bytes), Parser()
    done = len(BYTE_ORDER_MARK) if anatomy.begins_with_byte_order_mark else 0
    fed = 0
    for arrival in arrivals:
        try:
            given = framer.feed(arrival.data)
        except BlockTooLarge as error:
            given, anatomy.too_large = error.complete, error
        fed += len(arrival.data)
        before = len(anatomy.blocks)
        _add_blocks(anatomy.blocks, given, done, arrival.seconds, parser)
        done += len(given)
        _note_clump(anatomy.clumps, arrival, len(anatomy.blocks) - before, _is_begun(anatomy.body[done : min(fed, done + _SAMPLE_BYTES)]))
        if anatomy.too_large:
            break
    anatomy.unfinished = anatomy.body[done:fed]
    anatomy.comments = list(_comments(anatomy, arrivals, done))
    anatomy.reconnection_time, anatomy.last_event_id = parser.reconnection_time, parser.last_event_id
    return anatomy


def _add_blocks(blocks: list[Block], given: bytes, offset: int, seconds: float, parser: Parser) -> None:
    for raw in split_blocks(given) if given else []:
        if raw.strip(b"\r\n"):
            events = parser.feed(raw)
            blocks.append(Block(raw, offset, seconds, events[0] if events else None))
        elif blocks:  # further blank lines, or the LF of a CRLF split between arrivals, belong to the block before
            blocks[-1] = replace(blocks[-1], raw=blocks[-1].raw + raw)
        offset += len(raw)


def _is_begun(pending: bytes) -> bool:
    """Return whether part of an event is there. Servers send whole comment and `retry` lines ahead of events, so these do not count."""
    lines = pending.splitlines(keepends=True)
    return any(line.strip(b"\r\n") and not (_AHEAD.match(line) and line[-1:] in (b"\r", b"\n")) for line in lines)


def _note_clump(clumps: list[Clump], arrival: Arrival, blocks: int, inside: bool) -> None:
    if not clumps or arrival.seconds - clumps[-1].end >= CLUMP_PAUSE_SECONDS:
        clumps.append(Clump(arrival.seconds, arrival.seconds))
    clump = clumps[-1]
    clump.end = arrival.seconds
    clump.size += len(arrival.data)
    clump.blocks += blocks
    clump.inside = inside


def _comments(anatomy: Anatomy, arrivals: Sequence[Arrival], done: int) -> Iterator[Comment]:
    ends = list(itertools.accumulate(len(arrival.data) for arrival in arrivals))
    parts = [(block.raw, block.offset, block.seconds, not block.names()) for block in anatomy.blocks]
    parts.append((anatomy.unfinished, done, float("inf"), False))
    for raw, offset, complete_seconds, alone in parts:
        for line in raw.splitlines(keepends=True):
            offset += len(line)
            if line[:1] == b":" and line[-1:] in (b"\r", b"\n"):
                seconds = arrivals[bisect.bisect_left(ends, offset)].seconds
                yield Comment(line[1:].strip(), seconds, alone, complete_seconds - seconds >= CLUMP_PAUSE_SECONDS)
