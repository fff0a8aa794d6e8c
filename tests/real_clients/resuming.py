"""Libraries that resume by themselves. One process for each language makes all calls, several at once."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.kit.routed_gateway import Gateway
from tests.kit.waiting import until
from tests.real_clients.clients import MARKS, command
from tests.real_clients.running import Run

KEY = "key-of-a-test"


class Program:
    """The process of a language."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._numbers = itertools.count()
        self._outputs: dict[int, asyncio.StreamReader] = {}

    def call(self, **asked: Any) -> Run:
        """Begin a call, and return its output."""
        number = next(self._numbers)
        output = self._outputs[number] = asyncio.StreamReader(limit=2**20)
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"number": number, **asked}).encode() + b"\n")
        return Run(output)

    async def distribute(self) -> None:
        """Give each line of the process to its call, until the process ends."""
        assert self._process.stdout
        while line := await self._process.stdout.readline():
            said = json.loads(line)
            self._outputs[said.pop("number")].feed_data(json.dumps(said).encode() + b"\n")
        for output in self._outputs.values():
            output.feed_eof()


class Programs:
    """The processes, each started at its first call."""

    def __init__(self, stack: contextlib.AsyncExitStack) -> None:
        self._stack = stack
        self._programs: dict[str, Program] = {}

    async def of(self, language: str) -> Program:
        if language not in self._programs:
            self._programs[language] = await self._stack.enter_async_context(_program(language))
        return self._programs[language]


@dataclass(frozen=True)
class Library:
    """A library of a language."""

    name: str
    language: str

    def __str__(self) -> str:
        return f"{self.name} {self.language}"

    async def call(self, programs: Programs, url: str, does: str = "", **options: Any) -> Run:
        """Begin a call of the library."""
        asked = {"does": does, "key": KEY} if does else {}
        return (await programs.of(self.language)).call(library=self.name, url=url, **asked | options)


def each(name: str) -> pytest.MarkDecorator:
    """Run a test with the library in each language."""
    return pytest.mark.parametrize("library", [pytest.param(it, id=str(it), marks=MARKS[it.language]) for it in libraries(name)])


def libraries(name: str) -> list[Library]:
    """Return the library in Python, also with its asynchronous client if it has both kinds, and in JavaScript."""
    pairs = [(name, "python"), (f"{name} async", "python"), (name, "javascript")]
    return [Library(*pair) for pair in pairs if pair != ("mcp async", "python")]


async def drains(gateway: Gateway) -> "asyncio.Task[None]":
    """Send SIGTERM, and return when the gateway drains: with the task that waits for its end."""
    stopping = asyncio.create_task(gateway.stop())
    await until(lambda: any(line["event"] == "draining" for line in gateway.process.log()), 0.02)
    return stopping


@contextlib.asynccontextmanager
async def running_programs() -> AsyncIterator[Programs]:
    async with contextlib.AsyncExitStack() as stack:
        yield Programs(stack)


@contextlib.asynccontextmanager
async def _program(language: str) -> AsyncIterator[Program]:
    *interpreter, place = await asyncio.to_thread(command, language)
    path = Path(place)
    script = path.with_name("resuming.mjs") if language == "javascript" else path / "resuming.py"
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*interpreter, script, stdin=pipe, stdout=pipe, limit=2**20)
    program = Program(process)
    distributing = asyncio.create_task(program.distribute())
    try:
        yield program
    finally:
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            process.kill()
        await process.wait()
        await distributing
