"""Where upstream connections read into, and how much at once."""

import asyncio
import os
from collections.abc import Callable
from typing import Protocol

SAMPLE_EVERY = 64
"""One read in 64 is timed: reading the clock costs more than it tells."""

READ_BYTES = 64 * 1024
"""One read brings at most this much. uvloop by itself reads 256 kB, up to 32 times in a row."""

_TURN_BYTES = 2 * 1024 * 1024  # what all flat-out connections together may bring in one turn of the loop: some twenty milliseconds
_LEAST_READ_BYTES = 16 * 1024
_MOST_LAST_READS = 16  # 1 MiB: an answer that came before a write failed


class ReadBuffer:
    """Where all connections of a session read into, one after the other.

    The more connections are flat out, filling whatever they are offered, the less each may read in a turn of the event loop. So the
    loop stays quick for the others, and for those who are just connecting.
    """

    def __init__(self, note_latency: Callable[[float], object] | None = None) -> None:
        self.note_latency = note_latency
        """Is called with the seconds that a timed read took, to the end of the write."""
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


class Owner(Protocol):
    """The protocol that gets what was read: aiohttp's, with what `UpstreamProtocol` adds."""

    fd: int
    flat_out: bool
    read_buffer: ReadBuffer

    @property
    def is_answering(self) -> bool:
        """Whether an answer is awaited, or has not come to its end."""

    def set_flat_out(self, flat_out: bool) -> None:
        """Note whether the newest read filled what it was offered."""

    def time_read(self, data: bytes, note_latency: Callable[[float], object] | None) -> None:
        """Take what was read, and note how long that took."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As `asyncio.Protocol`; so are those that follow."""

    def data_received(self, data: bytes) -> None: ...

    def eof_received(self) -> bool | None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def connection_lost(self, exc: BaseException | None) -> None: ...


class BoundedReads(asyncio.BufferedProtocol):
    """What the transport of an UpstreamProtocol talks to: bounds its reads, passes on all else.

    It stands between because an event loop lets only those choose the buffer that are no `asyncio.Protocol`.
    """

    __slots__ = ("_buffer", "_offered", "_owner")

    def __init__(self, owner: Owner, buffer: ReadBuffer) -> None:
        self._owner = owner
        self._buffer = buffer
        self._offered = 0

    def get_buffer(self, sizehint: int) -> memoryview:
        buffer = self._buffer
        self._offered = buffer.share
        return buffer.memory if buffer.share == READ_BYTES else buffer.memory[: buffer.share]

    def buffer_updated(self, nbytes: int) -> None:
        owner = self._owner
        if owner.flat_out is not (nbytes == self._offered):
            owner.set_flat_out(not owner.flat_out)
        buffer = self._buffer
        buffer.until_sample -= 1
        if buffer.until_sample:
            owner.data_received(buffer.memory[:nbytes].tobytes())
        else:
            buffer.until_sample = SAMPLE_EVERY
            owner.time_read(buffer.memory[:nbytes].tobytes(), buffer.note_latency)

    def eof_received(self) -> None:
        self._owner.eof_received()

    def pause_writing(self) -> None:
        self._owner.pause_writing()

    def resume_writing(self) -> None:
        self._owner.resume_writing()

    def connection_lost(self, exc: BaseException | None) -> None:
        if exc is not None:
            self._read_rest()
        self._owner.connection_lost(exc)

    def _read_rest(self) -> None:
        """Read what the kernel still holds when the connection failed.

        An upstream may answer a request before it has read all of it, and close. The write that fails then ends the connection for
        the event loop, which reads no more; the socket is closed only after `connection_lost`.
        """
        owner = self._owner
        for _ in range(_MOST_LAST_READS):
            if not owner.is_answering:
                return
            try:
                data = os.read(owner.fd, READ_BYTES)
            except OSError:  # nothing is there, or the failure itself is told once more
                return
            if not data:
                return
            self._take(data)

    def _take(self, data: bytes) -> None:
        """Take what was read without the event loop."""
        self._owner.data_received(data)
