"""Test that the Model Context Protocol's SDK, client and server, works through a direct route, and resumes by the protocol itself."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from mcp import Client, MCPError
from mcp.client.client import ConnectMode
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, TextContent
from mcp_types.version import LATEST_HANDSHAKE_VERSION, LATEST_MODERN_VERSION

from tests.clients.line import Line
from tests.clients.mcp_server import SlowServer, serve
from tests.kit.routed_gateway import running
from tests.kit.waiting import GUARD_SECONDS

PRIMING = b"data: \r\n"
"""The first block of a resumable answer: an ID without data."""


class Call:
    """A call of the tool, and the progress that the client has received."""

    def __init__(self, client: Client, to: int) -> None:
        self._progress: list[tuple[float, str | None]] = []
        self._calling = asyncio.create_task(client.call_tool("count", {"to": to}, progress_callback=self._note))

    async def _note(self, progress: float, total: float | None, message: str | None) -> None:
        self._progress.append((progress, message))

    async def hears(self, last: int) -> None:
        """Wait until the client has received each number up to `last`, once and in order."""
        expected = [(float(number), f"number {number}, Zahl {number} 🌊") for number in range(1, last + 1)]
        async with asyncio.timeout(GUARD_SECONDS):
            while len(self._progress) < last and not (self._calling.done() and self._calling.exception()):
                await asyncio.sleep(0.005)
        assert self._progress == expected

    async def result(self) -> str:
        async with asyncio.timeout(GUARD_SECONDS):
            result = await self._calling
        assert isinstance(result, CallToolResult)
        [content] = result.content
        assert isinstance(content, TextContent)
        return content.text


@contextlib.asynccontextmanager
async def stage(directory: Path, mode: ConnectMode) -> AsyncIterator[tuple[SlowServer, Line, Client]]:
    """Run a server behind the gateway, a line to the gateway, and a client that is connected over the line."""
    server = SlowServer()
    async with serve(server) as origin:
        route = {"path": "/mcp", "upstream": origin, "mode": "direct", "heartbeat_seconds": 0.1}
        async with (
            running([route], directory) as gateway,
            Line(gateway.port) as line,
            httpx2.AsyncClient(trust_env=False, timeout=httpx2.Timeout(30, read=300)) as http,
            Client(streamable_http_client(line.url + "/mcp", http_client=http), mode=mode) as client,
        ):
            yield server, line, client


@pytest.mark.parametrize(("mode", "version"), [("auto", LATEST_MODERN_VERSION), ("legacy", LATEST_HANDSHAKE_VERSION)])
async def test_progress_of_a_tool_reaches_the_client_at_once(mode: ConnectMode, version: str, tmp_path: Path) -> None:
    async with stage(tmp_path, mode) as (server, _, client):
        assert client.protocol_version == version
        call = Call(client, to=4)
        for number in range(1, 5):
            await server.say(number)
            await call.hears(number)
        assert await call.result() == "counted to 4"
        assert server.calls == 1


async def test_client_whose_connection_is_killed_resumes_with_the_missed_progress(tmp_path: Path) -> None:
    async with stage(tmp_path, "legacy") as (server, line, client):
        call = Call(client, to=8)
        await server.say(1, 2, 3)
        await call.hears(3)
        line.cut()
        await server.say(4, 5, 6, 7, 8)
        assert await call.result() == "counted to 8"
        await call.hears(8)
        assert server.calls == 1
        assert server.resumptions


async def test_client_continues_live_after_it_has_resumed(tmp_path: Path) -> None:
    async with stage(tmp_path, "legacy") as (server, line, client):
        call = Call(client, to=4)
        await server.say(1)
        await call.hears(1)
        primed = line.received.count(PRIMING)
        line.cut()
        await server.say(2)
        await line.passes(PRIMING, times=primed + 1)
        for number in (3, 4):
            await call.hears(number - 1)
            await server.say(number)
        assert await call.result() == "counted to 4"
        await call.hears(4)
        assert server.calls == 1
        assert server.resumptions


async def test_client_of_a_version_without_resumption_sees_the_killed_connection(tmp_path: Path) -> None:
    async with stage(tmp_path, "auto") as (server, line, client):
        call = Call(client, to=3)
        await server.say(1)
        await call.hears(1)
        line.cut()
        with pytest.raises(MCPError, match="ended without a response"):
            await call.result()
        await call.hears(1)
