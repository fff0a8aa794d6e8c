"""The events of the measurements: each shows whether one is missing, late or damaged.

data: <number, 10 digits> <time of sending, CLOCK_MONOTONIC in ns, 20 digits, 0 when it has none> <filler>
"""

import asyncio
import functools
import socket
import time

SMALLEST = 40
"""Bytes of an event without filler, including its blank line."""
_BLANK_LINE = b"\n\n"
_FILLER = b"abcdefghijklmnopqrstuvwxyz0123456789"
_LONG_FILLER = _FILLER * 128
_SOCKET_BUFFER_BYTES = 128 * 1024


def bound_buffer(transport: asyncio.Transport, option: int) -> None:
    """Keep the kernel's buffer (`option` is SO_SNDBUF or SO_RCVBUF) from growing to megabytes.

    Flat-out streams would fill it and be read seconds late; and uvloop reads as long as there is something to read.
    """
    connection: socket.socket = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BUFFER_BYTES)


@functools.cache
def _template(size: int) -> bytes:
    """Return an event of `size` bytes without its blank line, with `%` placeholders for number and time."""
    if size < SMALLEST:
        raise ValueError(f"size must be at least {SMALLEST} bytes, got {size}")
    length = size - SMALLEST
    return b"data: %010d %020d " + (_FILLER * (length // len(_FILLER) + 1))[:length]


@functools.cache
def _chunk_template(size: int) -> bytes:
    return b"%x\r\n" % size + _template(size) + _BLANK_LINE + b"\r\n"


def render(number: int, size: int) -> bytes:
    """Return event `number`, `size` bytes long, sent now."""
    return _template(size) % (number, time.monotonic_ns()) + _BLANK_LINE


def render_with_id(number: int, size: int) -> bytes:
    """Return event `number` with its number as ID, `size` bytes long, sent now."""
    id = b"id: %d\n" % number
    return id + render(number, size - len(id))


def filler() -> bytes:
    """Return the prefix of any filler up to some thousand bytes."""
    return _LONG_FILLER


def render_chunks(first: int, count: int, size: int) -> bytes:
    """Return `count` events from number `first`, each an HTTP chunk of its own; only the first has a time of sending."""
    return _chunk_template(size) % (first, time.monotonic_ns()) + _render_rest(first + 1, count - 1, size)


@functools.lru_cache(maxsize=1024)
def _render_rest(first: int, count: int, size: int) -> bytes:
    template = _chunk_template(size)
    return b"".join([template % (number, 0) for number in range(first, first + count)])


class Checker:
    """Check the body of one response: events of `size` bytes, numbered from 0. Heartbeats (`:` lines) between them are no fault,
    nor are IDs after their data."""

    def __init__(self, size: int) -> None:
        self._unstamped = _template(size).replace(b"%020d", b"0" * 20)
        self._length = size - len(_BLANK_LINE)
        self._filler = _template(size)[len(b"data: %010d %020d ") :]
        self._rest = b""
        self._next = 0
        self.events = 0
        self.lost = 0
        self.repeated = 0
        self.corrupt = 0

    @property
    def within_event(self) -> bool:
        """Whether the bytes so far end within an event."""
        return bool(self._rest.removeprefix(b":\n"))

    def feed(self, body: bytes) -> list[int]:
        """Check body bytes, cut anywhere. Return the times of sending of the events in them."""
        blocks = (self._rest + body).split(_BLANK_LINE)
        self._rest = blocks.pop()
        times = []
        unstamped = self._unstamped
        for block in blocks:
            if block == unstamped % self._next:
                self._next += 1
            elif (sent := self._check(block.removeprefix(b":\n").partition(b"\nid: ")[0])) > 0:
                times.append(sent)
        self.events += len(blocks)
        return times

    def _check(self, block: bytes) -> int:
        """Return the time of sending, 0 when it has none or the event is damaged."""
        number, sent = block[6:16], block[17:37]
        well_formed = block[:6] == b"data: " and block[16:17] == block[37:38] == b" " and number.isdigit() and sent.isdigit()
        if len(block) != self._length or block[38:] != self._filler or not well_formed:
            self.corrupt += 1
            self._next += 1
            return 0
        distance = int(number) - self._next
        if distance < 0:
            self.repeated += 1
        else:
            self.lost += distance
            self._next = int(number) + 1
        return int(sent)
