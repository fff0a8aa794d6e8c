"""A progress line on a terminal; nothing anywhere else."""

import sys
import time

_REDRAW_SECONDS = 0.2
_ERASE_LINE = "\r\x1b[K"


class Progress:
    """Draw on standard error, only if it is a terminal."""

    def __init__(self) -> None:
        self._shown = False
        self._enabled = sys.stderr.isatty()
        self._drawn_at = 0.0

    @property
    def due(self) -> bool:
        """Whether it is time to draw again."""
        return self._enabled and time.monotonic() - self._drawn_at >= _REDRAW_SECONDS

    def show(self, text: str) -> None:
        """Draw `text` in place of the last one."""
        if self._enabled:
            sys.stderr.write(_ERASE_LINE + text)
            sys.stderr.flush()
            self._shown = True
            self._drawn_at = time.monotonic()

    def clear(self) -> None:
        """Erase the line, for example before printing something."""
        if self._shown:
            sys.stderr.write(_ERASE_LINE)
            sys.stderr.flush()
            self._shown = False
