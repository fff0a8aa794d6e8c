"""A line on the terminal that says how far a command is; nothing anywhere else."""

import sys
import time

_REDRAW_SECONDS = 0.2
_ERASE_LINE = "\r\x1b[K"


class Progress:
    """Draws on standard error, and only if that is a terminal."""

    def __init__(self) -> None:
        self._shown = False
        self._enabled = sys.stderr.isatty()
        self._drawn_at = 0.0

    @property
    def due(self) -> bool:
        """Whether it is time to draw again."""
        return self._enabled and time.monotonic() - self._drawn_at >= _REDRAW_SECONDS

    def show(self, text: str) -> None:
        """Draws `text` in the place of what was drawn before."""
        if self._enabled:
            sys.stderr.write(_ERASE_LINE + text)
            sys.stderr.flush()
            self._shown = True
            self._drawn_at = time.monotonic()

    def clear(self) -> None:
        """Gives the line back, for example before something is printed."""
        if self._shown:
            sys.stderr.write(_ERASE_LINE)
            sys.stderr.flush()
            self._shown = False
