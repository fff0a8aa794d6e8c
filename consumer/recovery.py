"""Recover the state of a log directory when it is opened: the end of the log, and the newest events."""

import os
import secrets
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from service.storage.file_format import sync

from .record import Position, Record, RecordError, decode
from .segment import Segment, SegmentUnreadable, clear_unfinished, list_segments

_PIECE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Seen:
    """The facts that are remembered of a record."""

    id: str | None
    key: int
    """As `Record.key`."""
    checkpoint: str | None
    """As `Record.checkpoint`."""
    gap: bool
    position: Position
    source: str

    @classmethod
    def of(cls, record: Record) -> "Seen":
        return cls(record.id, record.key(), record.checkpoint, record.gap is not None, record.position, record.source)


@dataclass(frozen=True, slots=True)
class Recovered:
    """The state of a log between two runs of its consumer."""

    epoch: str
    next_number: int
    """The number of the next line."""
    checkpoint: str = ""
    """The newest event ID of the source that the log has; empty: none."""
    recent: list[Seen] = field(default_factory=list)
    """The newest records of the source, oldest first."""
    other_source: str | None = None
    """The source of the newest record, if it is another one."""
    cut_bytes: int = 0
    """Bytes of a torn last line that were removed."""
    unreadable: list[str] = field(default_factory=list)
    """Segments that could not be read to the end."""


def recover(directory: Path, source: str, window: int) -> Recovered:
    """Repair the directory after a crash, and return the log's state from the newest `window` records.

    IDs have a meaning only for their own source, so records of other sources count only for the end of the log.
    The returned state is durable. The caller owns the directory. Raises OSError.
    """
    cut_bytes = 0
    clear_unfinished(directory)
    segments = list_segments(directory)
    if segments and not segments[-1].compressed:
        cut_bytes = _cut_torn_end(segments[-1].path)
    sync(directory)
    unreadable: list[str] = []
    recent = _read_back(segments, window, unreadable)
    # The next line may have to begin a segment, whose name must differ from that of an unreadable compressed one.
    next_number = segments[-1].first + segments[-1].compressed if segments else 1
    if not recent:
        return Recovered(secrets.token_hex(6), next_number, cut_bytes=cut_bytes, unreadable=unreadable)
    newest = recent[-1]
    own = [seen for seen in recent if seen.source == source]
    told = (seen.checkpoint for seen in reversed(own))
    return Recovered(
        newest.position.epoch,
        max(newest.position.number + 1, next_number),
        next((id for id in told if id is not None), ""),
        own,
        None if newest.source == source else newest.source,
        cut_bytes,
        unreadable,
    )


def _cut_torn_end(path: Path) -> int:
    """Remove everything after the last line that is a record, sync, and return the number of removed bytes."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        end = size
        for begin, line in lines_backwards(path, size):
            if line.endswith(b"\n") and _is_record(line):
                break
            end = begin  # written in part before a crash or a power cut: never acknowledged
        if end < size:
            file.truncate(end)
        os.fsync(file.fileno())
    return size - end


def _is_record(line: bytes) -> bool:
    try:
        decode(line)
    except RecordError:
        return False
    return True


def lines_backwards(path: Path, size: int) -> Iterator[tuple[int, bytes]]:
    """Yield the lines in the first `size` bytes of a file, last first, each with its offset; read no more than the caller consumes."""
    with path.open("rb") as file:
        pieces: deque[bytes] = deque()  # the parts of the next line that were read
        at = size
        while at > 0:
            length = min(_PIECE_BYTES, at)
            at -= length
            file.seek(at)
            piece = file.read(length)
            while (cut := piece.rfind(b"\n", 0, len(piece) if pieces else len(piece) - 1)) >= 0:
                pieces.appendleft(piece[cut + 1 :])
                yield at + cut + 1, b"".join(pieces)
                pieces.clear()
                piece = piece[: cut + 1]
            pieces.appendleft(piece)
        if pieces:
            yield 0, b"".join(pieces)


def _read_back(segments: list[Segment], window: int, unreadable: list[str]) -> list[Seen]:
    """Return the newest `window` records, or more until one of them has the checkpoint; oldest first."""
    recent: deque[Seen] = deque()
    for segment in reversed(segments):
        recent.extendleft(_newest_first(segment, window - len(recent), unreadable))
        if len(recent) >= window and any(seen.checkpoint is not None for seen in recent):
            break
    return list(recent)


def _newest_first(segment: Segment, count: int, unreadable: list[str]) -> Iterator[Seen]:
    """Yield the newest `count` records of a segment, or more until one has the checkpoint."""
    if segment.compressed:
        tail: deque[bytes] = deque(maxlen=max(count, 1))
        try:
            tail.extend(line for line in segment.lines() if _is_record(line))
        except SegmentUnreadable as error:
            unreadable.append(f"{segment.path.name}: {error}")
        yield from (Seen.of(decode(line)) for line in reversed(tail))
        return
    given = 0
    for _, line in lines_backwards(segment.path, segment.path.stat().st_size):
        try:
            seen = Seen.of(decode(line))
        except RecordError:
            continue  # `verify` reports it; the log continues after it
        yield seen
        given += 1
        if given >= count and seen.checkpoint is not None:
            return
