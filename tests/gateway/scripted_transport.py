"""Subscribers on transports that a test fills and drains."""

import asyncio
from collections.abc import Callable

from gateway.access.budget import Budget
from gateway.streams.fan_out import FanOut
from gateway.streams.history import Limits
from gateway.streams.subscriber import Subscriber
from gateway.streams.wheel import TimerWheel

PLENTY = Limits(blocks=1_000_000, bytes=1 << 30, age_seconds=1e9)
HIGH_WATER_BYTES = 64 * 1024


class ScriptedTransport(asyncio.Transport):
    """Notes each write. After `takes` bytes nothing leaves any more, and what is over the high-water mark pauses who writes."""

    def __init__(self, takes: int | None = None) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.unsent = 0
        self.closing = False
        self.subscriber: Subscriber | None = None
        self._takes = takes

    @property
    def body(self) -> bytes:
        return b"".join(self.writes)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))
        if self._takes is None:
            return
        taken = min(self._takes, len(data))
        self._takes -= taken
        self.unsent += len(data) - taken
        self._pause_if_full()

    def _pause_if_full(self) -> None:
        assert self.subscriber is not None
        if self.unsent > HIGH_WATER_BYTES and not self.subscriber.paused:
            self.subscriber.pause()

    def drain(self, takes: int | None = None) -> None:
        """Send all held bytes, and `takes` more; without it everything from now on."""
        self.unsent, self._takes = 0, takes
        assert self.subscriber is not None
        if self.subscriber.paused:
            self.subscriber.resume()

    def is_closing(self) -> bool:
        return self.closing

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def abort(self) -> None:
        self.closing, self.unsent = True, 0


class Audience:
    """A fan-out with its wheel, and subscribers for it."""

    def __init__(
        self,
        limits: Limits = PLENTY,
        *,
        memory: Budget | None = None,
        heartbeat_ticks: int = 0,
        tick_seconds: float = 0.01,
        moved: Callable[[], None] | None = None,
        note_latency: Callable[[float], object] | None = None,
    ) -> None:
        self.wheel = TimerWheel(tick_seconds)
        self.memory = memory or Budget(1 << 30, 1 << 30)
        self.fan_out = FanOut(limits, self.wheel, self.memory, heartbeat_ticks=heartbeat_ticks, moved=moved, note_latency=note_latency)

    def subscriber(
        self,
        *,
        takes: int | None = None,
        chunked: bool = False,
        takes_retry: bool = False,
        resumes: bool = False,
        expires: int = 0,
        owner: str = "owner",
    ) -> Subscriber:
        """One who has not joined yet; `transport_of` gives what it writes to."""
        transport = ScriptedTransport(takes)
        subscriber = Subscriber(
            transport,
            self.wheel,
            chunked=chunked,
            takes_retry=takes_retry,
            unsent=self.memory,
            owner=owner,
            resumes=resumes,
            expires=expires,
        )
        transport.subscriber = subscriber
        return subscriber

    def join(
        self,
        cursor: int | None = None,
        *,
        takes: int | None = None,
        chunked: bool = False,
        takes_retry: bool = False,
        resumes: bool = False,
        owner: str = "owner",
    ) -> tuple[Subscriber, ScriptedTransport]:
        subscriber = self.subscriber(takes=takes, chunked=chunked, takes_retry=takes_retry, resumes=resumes, owner=owner)
        self.fan_out.join(subscriber, cursor)
        return subscriber, transport_of(subscriber)


def transport_of(subscriber: Subscriber) -> ScriptedTransport:
    transport = subscriber._transport
    assert isinstance(transport, ScriptedTransport)
    return transport


def blocks_of(count: int, size: int = 10, first: int = 0) -> list[bytes]:
    """Numbered blocks of `size` bytes."""
    return [b"%07d:%b\n\n" % (number, b"x" * (size - 10)) for number in range(first, first + count)]


def append_all(fan_out: FanOut, blocks: list[bytes]) -> bytes:
    """Append blocks in one turn of the event loop, and return them joined."""
    for block in blocks:
        fan_out.append(block)
    return b"".join(blocks)
