"""Limit the bytes a second sent to a client, by back-pressure."""

import asyncio
from collections.abc import Iterable

from ..http.connection import ClientConnection, Writing
from ..streams.flow import Connection
from .rates import Account

_MOST_AHEAD_SECONDS = 0.5
_GO_ON_SECONDS = 0.25  # else a client at its limit would need a pause and a timer for each event


class Allowance:
    """The bytes that one client may be sent on all its streams together.

    A client may be ahead by half a second plus one write, because event blocks are sent whole. Then its streams wait in line and resume
    one after the other.
    """

    def __init__(self, account: Account) -> None:
        self._account = account
        self._waiting: dict[Throttle, None] = {}
        self._turn: asyncio.Handle | None = None
        self._loop = asyncio.get_running_loop()

    def __repr__(self) -> str:
        return f"<Allowance {self._account} waiting={len(self._waiting)}>"

    @property
    def spent(self) -> bool:
        """Whether a stream must wait before it sends."""
        return self._account.ahead() > self._most_ahead

    def spend(self, size: int) -> bool:
        """Count sent bytes and return whether their stream must wait now."""
        return self._account.spend(size) > self._most_ahead

    @property
    def _most_ahead(self) -> float:
        return _GO_ON_SECONDS if self._waiting else _MOST_AHEAD_SECONDS  # else a stream that never pauses would starve the waiting ones

    async def wait(self) -> None:
        """Wait until an answer that is sent in one piece may be sent."""
        while self.spent:
            await asyncio.sleep(self._account.ahead() - _GO_ON_SECONDS)

    def queue(self, throttle: "Throttle") -> None:
        """Call `throttle.go_on` when its turn comes."""
        self._waiting[throttle] = None
        if self._turn is None:
            self._next_turn()

    def leave(self, throttle: "Throttle") -> None:
        """Remove a waiting throttle."""
        self._waiting.pop(throttle, None)
        if not self._waiting and self._turn is not None:
            self._turn.cancel()
            self._turn = None

    def _next_turn(self) -> None:
        seconds = self._account.ahead() - _GO_ON_SECONDS
        self._turn = self._loop.call_later(seconds, self._go_on) if seconds > 0 else self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """Resume the first waiting throttle, unless other streams or workers have used up the allowance."""
        self._turn = None
        if self._account.ahead() <= _GO_ON_SECONDS:
            throttle = next(iter(self._waiting))
            del self._waiting[throttle]
            throttle.go_on()
        if self._waiting and self._turn is None:
            self._next_turn()


class Throttle:
    """Pause a writer while its transport is full or the client's allowance is spent."""

    __slots__ = ("_allowance", "_full", "_spent", "_transport", "_writing")

    def __init__(self, transport: Connection, allowance: Allowance, *, full: bool) -> None:
        self._transport = transport
        self._allowance = allowance
        self._writing: Writing | None = None
        self._full = full
        self._spent = False
        if allowance.spent:
            self._wait()

    def __repr__(self) -> str:
        return f"<Throttle {'full ' if self._full else ''}{'spent' if self._spent else 'open'}>"

    @property
    def paused(self) -> bool:
        """Whether the writer starts paused."""
        return self._full or self._spent

    def open(self, writing: Writing) -> None:
        """Set the writer that is paused and resumed, until `close`."""
        self._writing = writing

    def close(self) -> None:
        """Stop pausing and resuming the writer. Bytes that it still writes are counted."""
        self._writing = None
        self._allowance.leave(self)

    def write(self, data: bytes) -> None:
        """Write and count `data`."""
        self._transport.write(data)
        self._count(len(data))

    def writelines(self, data: Iterable[bytes]) -> None:
        """Write and count all of `data`."""
        parts = tuple(data)
        self._transport.writelines(parts)
        self._count(sum(map(len, parts)))

    def is_closing(self) -> bool:
        """Return whether the transport is closing."""
        return self._transport.is_closing()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes the transport has not sent yet."""
        return self._transport.get_write_buffer_size()

    def abort(self) -> None:
        """Close the transport at once, and drop what it has not sent."""
        self._transport.abort()

    def _count(self, size: int) -> None:
        if self._allowance.spend(size) and not self._spent and self._writing is not None:
            self._wait()
            if not self._full:
                self._writing.pause()

    def _wait(self) -> None:
        self._spent = True
        self._allowance.queue(self)

    def go_on(self) -> None:
        """Resume the writer: the client has an allowance again."""
        self._spent = False
        if not self._full and self._writing is not None:
            self._writing.resume()

    def pause(self) -> None:
        """Pause the writer: the transport's buffer is full."""
        self._full = True
        if not self._spent and self._writing is not None:
            self._writing.pause()

    def resume(self) -> None:
        """Resume the writer: the transport's buffer has drained."""
        self._full = False
        if not self._spent and self._writing is not None:
            self._writing.resume()

    def lost(self) -> None:
        """Tell the writer that the client has disconnected."""
        writing = self._writing
        self.close()
        if writing is not None:
            writing.lost()


def open_throttle(connection: ClientConnection, sink: Connection, allowance: Allowance | None) -> Throttle | None:
    """Return a throttle for a connection's sink, None without a limit. Close it with `Throttle.close`."""
    return None if allowance is None else Throttle(sink, allowance, full=connection.writing_paused)


def begin_writing(connection: ClientConnection, writing: Writing, throttle: Throttle | None) -> bool:
    """Register `writing` to be paused and resumed. Return whether it starts paused."""
    if throttle is None:
        connection.writing = writing
        return connection.writing_paused
    throttle.open(writing)
    connection.writing = throttle
    return throttle.paused
