"""The files of a log directory: `events-<number of the first line>.jsonl`, and `.jsonl.zst` once closed and compressed."""

import os
import re
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import zstandard

from service.storage.file_format import sync

_NAME = re.compile(r"events-([0-9]{16})\.jsonl(\.zst)?")
_UNFINISHED = re.compile(r"events-[0-9]{16}\.jsonl\.zst\.tmp")
_PIECE_BYTES = 1024 * 1024
_COMPRESSED_PIECE_BYTES = 16 * 1024  # repetitive lines shrink a hundredfold and more


class SegmentUnreadable(Exception):
    """A segment cannot be read: the disk failed or the compressed data is damaged."""


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    """A file whose first line is the `first`-th of the log."""

    first: int
    path: Path

    @property
    def compressed(self) -> bool:
        return self.path.suffix == ".zst"

    def lines(self) -> Iterator[bytes]:
        """Yield the lines, in bounded memory; the last one has no LF when it is torn.

        A segment that was compressed since it was listed is read under its new name. Raises FileNotFoundError when it is gone, and
        SegmentUnreadable after the readable lines.
        """
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            if self.compressed:
                raise
            file = _compressed_path(self.path).open("rb")
        with file:
            yield from _split_lines(_decompress(file) if file.name.endswith(".zst") else _read(file, _PIECE_BYTES))


def _split_lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    parts: list[bytes] = []
    for piece in pieces:
        *lines, rest = piece.split(b"\n")
        for line in lines:
            parts.append(line)
            yield b"".join(parts) + b"\n"
            parts.clear()
        if rest:
            parts.append(rest)
    if parts:
        yield b"".join(parts)


def _read(file: IO[bytes], piece_bytes: int) -> Iterator[bytes]:
    try:
        while piece := file.read(piece_bytes):
            yield piece
    except OSError as error:
        raise SegmentUnreadable(str(error)) from error


def _decompress(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the content of successive zstd frames; unlike `stream_reader`, detect that the last one is truncated."""
    frame = zstandard.ZstdDecompressor().decompressobj()
    for piece in _read(file, _COMPRESSED_PIECE_BYTES):
        rest = piece
        try:
            while rest:
                if frame.eof:
                    frame = zstandard.ZstdDecompressor().decompressobj()
                yield frame.decompress(rest)
                rest = frame.unused_data
        except zstandard.ZstdError as error:
            raise SegmentUnreadable(str(error)) from error
    if not frame.eof:
        raise SegmentUnreadable("the compressed data ends too early")


def segment_path(directory: Path, first: int) -> Path:
    return directory / f"events-{first:016}.jsonl"


def list_segments(directory: Path) -> list[Segment]:
    """Return the segments, oldest first. If a crash left a segment and its compressed copy, return only the plain one.

    A listing is no snapshot: it may miss a segment that is renamed to its compressed name meanwhile. The next listing has it, so
    the directory is listed until two listings agree.
    """
    before, found = None, _list_once(directory)
    while found.keys() != before:
        before, found = found.keys(), _list_once(directory)
    return [found[first] for first in sorted(found)]


def _list_once(directory: Path) -> dict[int, Segment]:
    found: dict[int, Segment] = {}
    for name in sorted(os.listdir(directory), reverse=True):
        if match := _NAME.fullmatch(name):
            first = int(match[1])
            found[first] = Segment(first, directory / name)
    return found


def clear_unfinished(directory: Path) -> int:
    """Remove the files that a crash during compression left, and return their number. The segments themselves are whole."""
    removed = 0
    for name in os.listdir(directory):
        match = _NAME.fullmatch(name)
        beside_plain = match is not None and match[2] and segment_path(directory, int(match[1])).exists()
        if _UNFINISHED.fullmatch(name) or beside_plain:
            os.unlink(directory / name)
            removed += 1
    return removed


def compress(segment: Segment, stopped: threading.Event) -> int | None:
    """Replace a closed segment by a zstd copy, and return its size, or None when `stopped` was set meanwhile.

    At every moment one of the two is whole: the copy is synced before it gets its name, and only then the plain file is removed.
    Raises OSError with nothing changed.
    """
    target = _compressed_path(segment.path)
    unfinished = target.with_name(target.name + ".tmp")
    try:
        with segment.path.open("rb") as plain, unfinished.open("wb") as copy:
            state = os.fstat(plain.fileno())
            with zstandard.ZstdCompressor(write_checksum=True).stream_writer(copy, closefd=False) as writer:
                while not stopped.is_set() and (piece := plain.read(_PIECE_BYTES)):
                    writer.write(piece)
            if not stopped.is_set():
                copy.flush()
                os.utime(copy.fileno(), ns=(state.st_atime_ns, state.st_mtime_ns))  # retention uses the age of the newest line
                os.fsync(copy.fileno())
        if stopped.is_set():
            unfinished.unlink()
            return None
        os.rename(unfinished, target)
        sync(target.parent)
        os.unlink(segment.path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
    return target.stat().st_size


def _compressed_path(path: Path) -> Path:
    return path.with_name(path.name + ".zst")
