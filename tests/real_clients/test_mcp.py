"""The Model Context Protocol's SDK for JavaScript has a session through a direct route, and resumes a lost answer."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.clients.line import Line
from tests.clients.mcp_server import SlowServer, serve
from tests.kit.routed_gateway import running
from tests.real_clients.clients import Client
from tests.real_clients.running import Run, run

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.npm]

SDK = Client("mcp", "javascript")
HEARTBEAT = b"\r\n:\n"


@pytest_asyncio.fixture(loop_scope="session")
async def server() -> SlowServer:
    return SlowServer()


@pytest_asyncio.fixture(loop_scope="session")
async def mcp_line(server: SlowServer, tmp_path: Path) -> AsyncIterator[Line]:
    """Yield a line to a gateway in front of the server."""
    async with serve(server) as origin:
        route = {"path": "/mcp", "upstream": origin, "mode": "direct", "heartbeat_seconds": 0.1}
        async with running([route], tmp_path) as gateway, Line(gateway.port) as line:
            yield line


def progress(last: int) -> list[tuple[str, str]]:
    """Return the messages to a client while the tool counts to this number."""
    return [(str(number), f"number {number}, Zahl {number} 🌊") for number in range(1, last + 1)]


def told(session: Run) -> list[tuple[str, str]]:
    return [(event.id, event.data) for event in session.events]


async def test_tool_reports_its_progress_and_result_between_heartbeats(server: SlowServer, mcp_line: Line) -> None:
    async with run(SDK, f"{mcp_line.url}/mcp", to=3) as session:
        await server.say(1)
        await session.hears(1)
        before = mcp_line.received.count(HEARTBEAT)
        await mcp_line.passes(HEARTBEAT, times=before + 2)
        await server.say(2, 3)
        assert await session.end() == "counted to 3"
    assert told(session) == progress(3)
    assert server.calls == 1


async def test_session_continues_after_a_killed_connection(server: SlowServer, mcp_line: Line) -> None:
    async with run(SDK, f"{mcp_line.url}/mcp", to=3) as session:
        await server.say(1)
        await session.hears(1)
        mcp_line.cut()
        await server.say(2, 3)
        assert await session.end() == "counted to 3"
    assert told(session) == progress(3)
    assert server.calls == 1
    assert server.resumptions
