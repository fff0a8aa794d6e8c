"""Holds what a client is sent to so many bytes a second, by back-pressure."""

import asyncio
from collections.abc import Iterable

from ..downstream import DownstreamProtocol, Writing
from ..flow import Connection
from .rates import Account

_MOST_AHEAD_SECONDS = 0.5
_GO_ON_SECONDS = 0.25  # or there would be a pause, and a timer, for each event of a client that is at its limit


class Allowance:
    """What one client may be sent, by all its streams together.

    It may be ahead by half a second, and by one write: event blocks leave whole. Then its streams wait in the order in which they came,
    and go on one after the other.
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
        """Whether whoever wants to send has to wait now."""
        return self._account.ahead() > self._most_ahead

    def spend(self, size: int) -> bool:
        """Counts bytes that were sent, and tells whether who sent them has to wait now."""
        return self._account.spend(size) > self._most_ahead

    @property
    def _most_ahead(self) -> float:
        return _GO_ON_SECONDS if self._waiting else _MOST_AHEAD_SECONDS  # or one that never pauses would keep the others waiting

    async def wait(self) -> None:
        """Returns when what does not come in parts may be sent."""
        while self.spent:
            await asyncio.sleep(self._account.ahead() - _GO_ON_SECONDS)

    def queue(self, throttle: "Throttle") -> None:
        """Lets `throttle.go_on` be called when it is its turn."""
        self._waiting[throttle] = None
        if self._turn is None:
            self._next_turn()

    def leave(self, throttle: "Throttle") -> None:
        """Forgets one that waits."""
        self._waiting.pop(throttle, None)
        if not self._waiting and self._turn is not None:
            self._turn.cancel()
            self._turn = None

    def _next_turn(self) -> None:
        seconds = self._account.ahead() - _GO_ON_SECONDS
        self._turn = self._loop.call_later(seconds, self._go_on) if seconds > 0 else self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """Lets the first that waits go on, unless others have used up what there was, or workers have."""
        self._turn = None
        if self._account.ahead() <= _GO_ON_SECONDS:
            throttle = next(iter(self._waiting))
            del self._waiting[throttle]
            throttle.go_on()
        if self._waiting and self._turn is None:
            self._next_turn()


class Throttle:
    """Stands between a transport and who writes to it: who writes is paused when the transport is full or the allowance is spent, and
    resumed when neither is so."""

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
        """Whether who writes is to be paused from the beginning."""
        return self._full or self._spent

    def open(self, writing: Writing) -> None:
        """Names who writes. `close` ends it."""
        self._writing = writing

    def close(self) -> None:
        """Pauses and resumes nobody any more; what is still written is counted."""
        self._writing = None
        self._allowance.leave(self)

    def write(self, data: bytes) -> None:
        """Takes `data`."""
        self._transport.write(data)
        self._count(len(data))

    def writelines(self, data: Iterable[bytes]) -> None:
        """Takes them all."""
        parts = tuple(data)
        self._transport.writelines(parts)
        self._count(sum(map(len, parts)))

    def is_closing(self) -> bool:
        """Tells whether the transport takes no more."""
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
        """Takes note that there is an allowance again."""
        self._spent = False
        if not self._full and self._writing is not None:
            self._writing.resume()

    def pause(self) -> None:
        """Takes note that the transport's buffer is full."""
        self._full = True
        if not self._spent and self._writing is not None:
            self._writing.pause()

    def resume(self) -> None:
        """Takes note that it has drained."""
        self._full = False
        if not self._spent and self._writing is not None:
            self._writing.resume()

    def lost(self) -> None:
        """Takes note that the client has left."""
        writing = self._writing
        self.close()
        if writing is not None:
            writing.lost()


def open_throttle(protocol: DownstreamProtocol, allowance: Allowance | None) -> Throttle | None:
    """Gives what stands before a connection's transport, None when there is no limit. `Throttle.close` ends it."""
    if allowance is None or protocol.transport is None:
        return None
    return Throttle(protocol.transport, allowance, full=protocol.writing_paused)


def begin_writing(protocol: DownstreamProtocol, writing: Writing, throttle: Throttle | None) -> bool:
    """Lets `writing` hear when to pause and to resume, and tells whether it begins with a pause."""
    if throttle is None:
        protocol.writing = writing
        return protocol.writing_paused
    throttle.open(writing)
    protocol.writing = throttle
    return throttle.paused
