"""The read buffer of upstream connections, and the limit of each read."""

import asyncio
import os
from collections.abc import Callable
from typing import Protocol

SAMPLE_EVERY = 64
"""One read in 64 is timed: reading the clock each time costs too much."""

READ_BYTES = 64 * 1024
"""Most bytes of one read. By default uvloop reads 256 kB, up to 32 times in a row."""

_TURN_BYTES = 2 * 1024 * 1024  # for all flat-out connections in one turn of the event loop: about 20 ms
_LEAST_READ_BYTES = 16 * 1024
_MOST_LAST_READS = 16  # 1 MiB: an answer that arrived before a write failed


class ReadBuffer:
    """The memory that all connections of a session read into, one at a time.

    A connection is flat out if its reads fill the offered memory. The more connections are, the less each may read per turn of the event
    loop. So other connections, and new ones, do not wait long.
    """

    def __init__(self, note_latency: Callable[[float], object] | None = None) -> None:
        self.note_latency = note_latency
        """Called with the seconds of a timed read, to the end of the write."""
        self.until_sample = SAMPLE_EVERY
        """Number of reads until one is timed."""
        self.memory = memoryview(bytearray(READ_BYTES))
        self.share = READ_BYTES
        """Most bytes of one read at present."""
        self._flat_out = 0

    def count(self, change: int) -> None:
        """Count that a connection has become flat out (1) or no longer is (-1)."""
        self._flat_out += change
        self.share = max(_LEAST_READ_BYTES, min(READ_BYTES, _TURN_BYTES // max(1, self._flat_out)))


class Owner(Protocol):
    """The protocol that receives the data: aiohttp's, with the additions of `UpstreamProtocol`."""

    fd: int
    flat_out: bool
    read_buffer: ReadBuffer

    @property
    def is_answering(self) -> bool:
        """Whether an answer is awaited or incomplete."""

    def set_flat_out(self, flat_out: bool) -> None:
        """Set whether the newest read filled the offered memory."""

    def time_read(self, data: bytes, note_latency: Callable[[float], object] | None) -> None:
        """Process received data, and report how long that took."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Do the same as in `asyncio.Protocol`, like the methods below."""

    def data_received(self, data: bytes) -> None: ...

    def eof_received(self) -> bool | None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def connection_lost(self, exc: BaseException | None) -> None: ...


class BoundedReads(asyncio.BufferedProtocol):
    """The protocol between a transport and an UpstreamProtocol: it limits reads, and forwards all other calls.

    It is separate because only a `BufferedProtocol` may choose the buffer, and aiohttp's is an `asyncio.Protocol`.
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
        """Read data that the kernel still holds after the connection failed.

        An upstream may answer a request before it has read all of it, and close. The failing write then ends the connection for the event
        loop, which does not read again. The socket is closed only after `connection_lost`.
        """
        owner = self._owner
        for _ in range(_MOST_LAST_READS):
            if not owner.is_answering:
                return
            try:
                data = os.read(owner.fd, READ_BYTES)
            except OSError:  # no data, or the same failure again
                return
            if not data:
                return
            self._take(data)

    def _take(self, data: bytes) -> None:
        """Process data that was read without the event loop."""
        self._owner.data_received(data)
