"""Where upstream connections read into, and how much at once."""

from .metrics.latency import SAMPLE_EVERY, Latency

READ_BYTES = 64 * 1024
"""One read brings at most this much. uvloop by itself reads 256 kB, up to 32 times in a row."""

_TURN_BYTES = 2 * 1024 * 1024  # what all flat-out connections together may bring in one turn of the loop: some twenty milliseconds
_LEAST_READ_BYTES = 16 * 1024


class ReadBuffer:
    """Where all connections of a session read into, one after the other.

    The more connections are flat out, filling whatever they are offered, the less each may read in a turn of the event loop. So the
    loop stays quick for the others, and for those who are just connecting.
    """

    def __init__(self, latency: Latency | None = None) -> None:
        self.latency = latency
        self.until_sample = SAMPLE_EVERY
        """How many reads it is until one is timed."""
        self.memory = memoryview(bytearray(READ_BYTES))
        self.share = READ_BYTES
        """How many bytes one read may bring now."""
        self._flat_out = 0

    def count(self, change: int) -> None:
        """Notes that a connection has begun (1) or ceased (-1) to fill what it is offered."""
        self._flat_out += change
        self.share = max(_LEAST_READ_BYTES, min(READ_BYTES, _TURN_BYTES // max(1, self._flat_out)))
