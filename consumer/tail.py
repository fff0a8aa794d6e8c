"""The command that prints a log's newest lines and follows it."""

import contextlib
import sys
import time
from collections import deque
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import IO

from service.progress import Progress

from .log import is_log
from .recovery import lines_backwards
from .segment import Segment, SegmentUnreadable, list_segments

_POLL_SECONDS = 0.1
_PIECE_BYTES = 1024 * 1024


def tail(directory: Path, *, count: int = 10, follow: bool = True) -> int:
    """Print the newest lines of the log in DIR, then new ones, across segments, until Ctrl-C. The exit status is 2 if DIR is not a log."""
    if not is_log(directory):
        sys.stderr.write(f"{directory}: not a consumer's log\n")
        return 2
    progress = Progress()
    printed = 0
    try:
        with contextlib.closing(read_tail(directory, count=count, follow=follow)) as lines:
            for line in lines:
                if line is None:
                    if progress.due:
                        progress.show(f"following {directory}, {printed} lines so far")
                    time.sleep(_POLL_SECONDS)
                    continue
                progress.clear()
                sys.stdout.buffer.write(line)
                sys.stdout.buffer.flush()
                printed += 1
    except KeyboardInterrupt:
        pass  # Ctrl-C is the way to stop
    finally:
        progress.clear()
    return 0


def read_tail(directory: Path, *, count: int, follow: bool) -> Generator[bytes | None, None, None]:
    """Yield the newest `count` whole lines, then with `follow` each new one, and None whenever there is none yet. The caller closes it."""
    segments = list_segments(directory)
    with contextlib.closing(_Cursor(directory, segments[-1] if segments else None)) as cursor:
        yield from _newest(segments, count, cursor.offset)
        while follow:
            given = False
            for line in cursor.read():
                given = True
                yield line
            if not given:
                yield None


def _newest(segments: list[Segment], count: int, end: int) -> list[bytes]:
    """Return the newest `count` lines of `segments`; of the newest segment, only those in its first `end` bytes."""
    lines: deque[bytes] = deque()
    for segment in reversed(segments):
        wanted = count - len(lines)
        if wanted <= 0:
            break
        with contextlib.suppress(SegmentUnreadable, FileNotFoundError):  # `verify` reports it; here the others still count
            lines.extendleft(_newest_of(segment, wanted, end if segment is segments[-1] else None))
    return list(lines)


def _newest_of(segment: Segment, count: int, end: int | None) -> Iterator[bytes]:
    try:
        size = segment.path.stat().st_size if end is None else end
        if not segment.compressed:
            for _, line in lines_backwards(segment.path, size):
                yield line
                count -= 1
                if not count:
                    return
            return
    except FileNotFoundError:
        pass  # compressed meanwhile
    yield from reversed(deque(segment.lines(), maxlen=count))


class _Cursor:
    """A position in a log, always at the beginning of a line."""

    def __init__(self, directory: Path, segment: Segment | None) -> None:
        self.offset = 0
        self._directory = directory
        self._first = -1
        self._file: IO[bytes] | None = None
        if segment is not None:
            self._first = segment.first
            if not segment.compressed:
                self._file = segment.path.open("rb")
                self.offset = self._last_line_end(self._file)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def read(self) -> Iterator[bytes]:
        """Yield the lines that have been written since."""
        yield from self._rest()
        while newer := self._next_segment():
            yield from self._rest()  # the lines written between our read and the rotation; the segment gets no more
            self.close()
            self._first = newer.first
            self.offset = 0
            if not newer.compressed:
                with contextlib.suppress(FileNotFoundError):  # compressed since it was listed
                    self._file = newer.path.open("rb")
            yield from newer.lines() if self._file is None else self._rest()

    def _next_segment(self) -> Segment | None:
        return next((segment for segment in list_segments(self._directory) if segment.first > self._first), None)

    def _rest(self) -> Iterator[bytes]:
        """Yield the whole lines after the offset; a partial line waits until it is complete or removed."""
        if self._file is None:
            return
        rest = b""
        self._file.seek(self.offset)
        while piece := self._file.read(_PIECE_BYTES):
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                self.offset += len(line) + 1
                yield line + b"\n"

    @staticmethod
    def _last_line_end(file: IO[bytes]) -> int:
        size = file.seek(0, 2)
        for begin, line in lines_backwards(Path(file.name), size):
            return size if line.endswith(b"\n") else begin
        return 0
