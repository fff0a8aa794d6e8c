"""Hand the body of an upstream's answer to a receiver by aiohttp's documented stream reader."""

import asyncio
import contextlib

import aiohttp

from eventstream.response import take_rest

from .asking import UpstreamAnswer
from .headers import is_delimited
from .receiver import CLOSED_EARLY, Receiver
from .upstream_link import DocumentedAnswer


def attach(response: UpstreamAnswer, receiver: Receiver) -> None:
    """Send the body of `response` to `receiver`: in this call if all of it is here, else in a task."""
    pump = Pump(response, receiver)
    if response.content.is_eof() or response.content.exception() is not None:
        pump.finish()
    else:
        receiver.attached(pump)
        pump.start()


class Pump:
    """Reads on while its receiver is not paused; aiohttp pauses the connection meanwhile."""

    def __init__(self, response: UpstreamAnswer, receiver: Receiver) -> None:
        self.lost: BaseException | None = None
        self._content = response.content
        self._link = response.link if isinstance(response, DocumentedAnswer) else None
        self._is_delimited = is_delimited(response.headers)
        self._receiver: Receiver | None = receiver
        self._may_read = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Pump {'over' if self._receiver is None else 'open'}>"

    def start(self) -> None:
        """Read in a task from now on."""
        self._task = asyncio.create_task(self._run())

    def pause(self) -> None:
        """Stop reading."""
        self._may_read.clear()

    def resume(self) -> None:
        """Read on."""
        self._may_read.set()

    def detach(self) -> None:
        """Forget the receiver."""
        self._receiver = None
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    async def _run(self) -> None:
        with contextlib.suppress(aiohttp.ClientError, OSError):  # `finish` says why
            await self._wait()
            async for chunk in self._content.iter_any():
                if self._receiver is None:
                    return
                self._receiver.feed(chunk)
                await self._wait()
        self.finish()

    async def _wait(self) -> None:
        """Wait until the receiver takes more, or there is no more: a client that reads nothing may have been sent all."""
        while self._receiver is not None and self._receiver.paused and not self._content.at_eof():
            self._may_read.clear()
            await self._may_read.wait()

    def finish(self) -> None:
        """Hand over what is left, and say how the body ended."""
        broken = self._link.error if self._link is not None and not (self._is_delimited and self._content.is_eof()) else None
        failure = self._content.exception()
        self.lost = broken or (failure.__cause__ if failure is not None and isinstance(failure.__cause__, OSError) else failure)
        rest = take_rest(self._content)
        while rest and self._receiver is not None:
            self._receiver.feed(rest)
            rest = self._content.read_nowait()
        if self._receiver is None:
            return
        if self.lost is None:
            self._receiver.upstream_ended()
        elif isinstance(self.lost, aiohttp.ClientPayloadError):
            self._receiver.upstream_lost(CLOSED_EARLY)
        else:
            self._receiver.upstream_lost(f"connection lost: {self.lost}")
