"""Report progress on standard error while the doctor listens."""

import asyncio
from typing import TextIO

from eventstream import BlockTooLarge, Framer, count_blocks

from .listening import Recording, Watcher

_TERMINAL_SECONDS = 0.5
_FILE_SECONDS = 2.0


class _Count:
    """Progress of one recording, counted incrementally."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.recording: Recording | None = None
        self._framer: Framer | None = Framer()
        self._read = 0
        self._blocks = 0

    def line(self, now: float) -> str:
        recording = self.recording
        if recording is None:
            return f"{self.name}no answer yet"
        self._look(recording)
        quiet = f", last byte {now - recording.arrivals[-1].seconds:.1f} s ago" if recording.arrivals else ""
        state = ", done; now reconnecting" if recording.heard else ", ended" if recording.ending != "open" else quiet
        return f"{self.name}{self._blocks} blocks, {recording.size} bytes{state}"

    def _look(self, recording: Recording) -> None:
        for arrival in recording.arrivals[self._read :]:
            if self._framer is not None:
                try:
                    self._blocks += count_blocks(self._framer.feed(arrival.data))
                except BlockTooLarge:  # the report has a finding on it
                    self._framer = None
        self._read = len(recording.arrivals)


class Progress:
    """Progress as one line that is overwritten on a terminal, as a line every 2 s elsewhere."""

    def __init__(self, stream: TextIO, seconds: float) -> None:
        self._stream = stream
        self._seconds = seconds
        self._counts: list[_Count] = []
        self._terminal = stream.isatty()

    def watcher(self, name: str) -> Watcher:
        """Return a callback that takes the recording once the head has arrived."""
        count = _Count(name)
        self._counts.append(count)

        def watch(recording: Recording) -> None:
            count.recording = recording

        return watch

    async def run(self) -> None:
        """Write progress until cancelled."""
        loop = asyncio.get_running_loop()
        begin = loop.time()
        try:
            self._write(f"listening for at most {self._seconds:g} s; Ctrl-C stops early")
            while True:
                await asyncio.sleep(_TERMINAL_SECONDS if self._terminal else _FILE_SECONDS)
                now = loop.time()
                passed = min(now - begin, self._seconds)
                self._write(f"{passed:.1f} of {self._seconds:g} s: " + "; ".join(count.line(now) for count in self._counts))
        finally:
            if self._terminal:
                self._stream.write("\r\x1b[K")
                self._stream.flush()

    def _write(self, line: str) -> None:
        self._stream.write(f"\r{line}\x1b[K" if self._terminal else f"{line}\n")
        self._stream.flush()
