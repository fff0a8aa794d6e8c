"""A client as a process whose output a test reads."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from tests.kit.waiting import GUARD_SECONDS
from tests.real_clients.clients import Client, command


@dataclass(frozen=True)
class Event:
    """An event as a client passed it to its user."""

    id: str
    type: str
    data: str


class Run:
    """A client or a call, and its output so far."""

    def __init__(self, output: asyncio.StreamReader) -> None:
        self._output = output
        self.events: list[Event] = []
        self.losses: list[str] = []
        """Lost connections that the client has replaced, or is about to."""
        self.last: dict[str, str] = {}

    @property
    def data(self) -> list[str]:
        """Return the data of all events so far."""
        return [event.data for event in self.events]

    @property
    def text(self) -> str:
        return "".join(self.data)

    async def hears(self, count: int) -> None:
        """Return when the client has printed `count` events. Raises AssertionError if it ends before."""
        while len(self.events) < count:
            assert await self._line(), f"the client ended with {self.last} after {self.data}"

    async def hears_text(self, text: str) -> None:
        """Return when the data of all events together are `text`."""
        while self.text != text:
            assert await self._line(), f"the client ended with {self.last} after {self.text!r}"

    async def end(self) -> str:
        """Return the client's report of a complete stream. Raises AssertionError for any other report."""
        await self._ends()
        assert "end" in self.last, f"the client ended with {self.last} after {self.data}"
        return self.last["end"]

    async def error(self) -> str:
        """Return the error that the client showed. Raises AssertionError if it reported a complete stream."""
        await self._ends()
        assert "error" in self.last, f"the client ended with {self.last} after {self.data}"
        return self.last["error"]

    async def _ends(self) -> None:
        while await self._line():
            pass

    async def _line(self) -> bool:
        """Read one line of the client. Return whether it was not the last. Raises AssertionError if none comes in time."""
        try:
            async with asyncio.timeout(GUARD_SECONDS):
                said = await self._output.readline()
        except TimeoutError:
            raise AssertionError(f"the client says nothing after {self.data}, its lost connections: {self.losses}") from None
        if not said:
            return False
        line: dict[str, str] = json.loads(said)
        if "data" in line:
            self.events.append(Event(**line))
        elif "lost" in line:
            self.losses.append(line["lost"])
        else:
            self.last = line
            return False
        return True


@contextlib.asynccontextmanager
async def run(client: Client, url: str, **options: Any) -> AsyncIterator[Run]:
    """Run the client until it ends or the block does."""
    program = await asyncio.to_thread(command, client.language)
    process = await asyncio.create_subprocess_exec(
        *program, client.name, url, json.dumps(options), stdout=asyncio.subprocess.PIPE, limit=2**20
    )
    assert process.stdout
    told = Run(process.stdout)
    try:
        yield told
        if told.last:
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                process.kill()
            await process.wait()
