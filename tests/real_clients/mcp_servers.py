"""Servers of the Model Context Protocol with the SDKs of two languages."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

from tests.clients.mcp_server import SlowServer, serve
from tests.kit.waiting import GUARD_SECONDS, until
from tests.real_clients.clients import command


class Server(Protocol):
    """A running server, with what `SlowServer` says."""

    calls: int
    resumptions: list[str]
    own_streams: int

    async def say(self, *numbers: int) -> None: ...


class JavaScriptServer:
    """The server of `mcp_server.mjs`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.calls = 0
        self.resumptions: list[str] = []
        self.own_streams = 0
        self.port = 0
        self._said: list[int] = []

    async def say(self, *numbers: int) -> None:
        assert self._process.stdin
        self._process.stdin.write(b"step\n" * len(numbers))
        async with asyncio.timeout(GUARD_SECONDS):
            while self._said[-len(numbers) :] != list(numbers):
                await asyncio.sleep(0.005)

    async def read(self) -> None:
        """Read the facts that the process prints, until it ends."""
        assert self._process.stdout
        while line := await self._process.stdout.readline():
            match json.loads(line):
                case {"port": port}:
                    self.port = port
                case {"called": _}:
                    self.calls += 1
                case {"said": number}:
                    self._said.append(number)
                case {"resumed": id}:
                    self.resumptions.append(id)
                case {"own": change}:
                    self.own_streams += change


@contextlib.asynccontextmanager
async def serving(language: str, *, stores: bool) -> AsyncIterator[tuple[Server, str]]:
    """Run a server with the SDK of a language, with an event store or without, and yield it and its origin."""
    if language == "python":
        server = SlowServer(stores=stores)
        async with serve(server) as origin:
            yield server, origin
        return
    *interpreter, main = await asyncio.to_thread(command, language)
    script = Path(main).with_name("mcp_server.mjs")
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*interpreter, script, *(["store"] if stores else []), stdin=pipe, stdout=pipe)
    running = JavaScriptServer(process)
    reading = asyncio.create_task(running.read())
    try:
        await until(lambda: running.port, 0.005)
        yield running, f"http://127.0.0.1:{running.port}"
    finally:
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            process.kill()
        await process.wait()
        await reading
