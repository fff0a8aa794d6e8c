"""The SDKs of the Model Context Protocol resume calls of slow tools, of servers with an event store and without."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.clients.line import Line
from tests.kit.routed_gateway import Gateway, Route, running
from tests.kit.stack import service_command
from tests.kit.waiting import until
from tests.real_clients.mcp_servers import Server, serving
from tests.real_clients.resuming import Library, Programs, drains, each, libraries
from tests.real_clients.running import Run

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.npm]

CUTS = 5
TO = CUTS + 2
RESUMED = b"\r\nStream-Id: "
QUICK = {"gateway.modes.resumable.first_block._RETRY_MS": 50, "gateway.modes.resumable.first_block._PATIENCE_SECONDS": 0.1}
"""Let clients return at once: with the gateway's own values five cuts take 15 s."""


@dataclass(frozen=True)
class Site:
    """A server behind its route, with the SDK of a language."""

    language: str
    stores: bool
    server: Server
    origin: str

    @property
    def path(self) -> str:
        return f"/{self.language}{'/stores' if self.stores else ''}/mcp"

    @property
    def route(self) -> Route:
        """The route, which rewrites no path: the servers serve any."""
        return {"path": self.path, "upstream": self.origin, "mode": "resumable", "heartbeat_seconds": 0.1, "resume": {"preset": "mcp"}}


Sites = Mapping[tuple[str, bool], Site]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def sites() -> AsyncIterator[Sites]:
    async with contextlib.AsyncExitStack() as stack:
        kinds = [(language, stores) for language in ("python", "javascript") for stores in (False, True)]
        yield {kind: Site(*kind, *(await stack.enter_async_context(serving(kind[0], stores=kind[1])))) for kind in kinds}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def quick(sites: Sites, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    command = service_command("gateway", constants=QUICK)
    async with running([site.route for site in sites.values()], tmp_path_factory.mktemp("mcp"), command=command) as gateway:
        yield gateway


@pytest_asyncio.fixture(loop_scope="session")
async def line(quick: Gateway) -> AsyncIterator[Line]:
    async with Line(quick.port) as line:
        yield line


@pytest.fixture(params=[("python", False), ("python", True), ("javascript", False), ("javascript", True)], ids=str)
def site(request: pytest.FixtureRequest, sites: Sites) -> Site:
    return sites[request.param]


def progress(last: int) -> list[tuple[str, str]]:
    """Return the messages to a client while the tool counts to this number."""
    return [(str(number), f"number {number}, Zahl {number} 🌊") for number in range(1, last + 1)]


def told(call: Run) -> list[tuple[str, str]]:
    return [(event.id, event.data) for event in call.events]


def interrupt(line: Line, library: Library, number: int) -> None:
    """Cut the line. The client for Python takes a second cut for a failed try from its old position, so all but the first end in order."""
    if library.language == "python" and number > 1:
        line.end()
    else:
        line.cut()


def has_first_id(received: bytes) -> bool:
    """Whether the last kept answer has an ID and no result yet."""
    answer = received.rpartition(RESUMED)[2]
    return b"id: " in answer and b'"result"' not in answer


async def is_called(server: Server, before: int, line: Line) -> None:
    """Wait for one more call than `before`, whose client has an ID to resume with."""
    await until(lambda: server.calls > before and has_first_id(line.received), 0.01)


@each("mcp")
async def test_tool_with_progress_is_interrupted_five_times(library: Library, site: Site, programs: Programs, line: Line) -> None:
    server, calls, resumptions = site.server, site.server.calls, len(site.server.resumptions)
    call = await library.call(programs, line.url + site.path, tool="count", to=TO)
    for number in range(1, TO):
        await server.say(number)
        await call.hears(number)
        if number <= CUTS:
            interrupt(line, library, number)
    await server.say(TO)
    assert await call.end() == f"counted to {TO}"
    assert told(call) == progress(TO)
    assert server.calls == calls + 1
    assert len(server.resumptions) == resumptions


@each("mcp")
async def test_silent_tool_is_interrupted_five_times(library: Library, site: Site, programs: Programs, line: Line) -> None:
    server, calls, resumptions = site.server, site.server.calls, len(site.server.resumptions)
    call = await library.call(programs, line.url + site.path, tool="think", to=1)
    await is_called(server, calls, line)
    for number in range(1, CUTS + 1):
        answers = line.received.count(RESUMED)
        interrupt(line, library, number)
        await line.passes(RESUMED, times=answers + 1)
        await until(lambda: has_first_id(line.received), 0.01)
    await server.say(1)
    assert await call.end() == "counted to 1"
    assert server.calls == calls + 1
    assert len(server.resumptions) == resumptions
    await until(lambda: server.own_streams == 0, 0.01)


@each("mcp")
async def test_own_stream_of_a_session_ends_at_the_server_with_its_client(
    library: Library, site: Site, programs: Programs, line: Line
) -> None:
    call = await library.call(programs, line.url + site.path, tool="think", to=1)
    await until(lambda: site.server.own_streams == 1 and has_first_id(line.received), 0.01)
    line.hold_connections()
    line.cut()
    await until(lambda: site.server.own_streams == 0, 0.01)
    line.release_connections()
    await site.server.say(1)
    assert await call.end() == "counted to 1"


async def test_calls_outlast_a_drain_and_a_restart(programs: Programs, sites: Sites, tmp_path: Path) -> None:
    python, javascript = libraries("mcp")
    tools = [
        (python, sites["javascript", False], "think"),
        (python, sites["javascript", True], "count"),
        (javascript, sites["python", False], "count"),
        (javascript, sites["python", True], "think"),
    ]
    async with (
        running([site.route for site in sites.values()], tmp_path, drain_seconds=60) as gateway,
        contextlib.AsyncExitStack() as stack,
    ):
        calls = []
        for library, site, tool in tools:
            before = site.server.calls
            line = await stack.enter_async_context(Line(gateway.port))
            call = await library.call(programs, line.url + site.path, tool=tool, to=2)
            await is_called(site.server, before, line)
            await site.server.say(1)
            calls.append((call, site.server, line, progress(2) if tool == "count" else [], before))
        for call, _, line, expected, _ in calls:
            await call.hears(len(expected[:1]))
            line.hold_connections()
            line.cut()
        stopping = await drains(gateway)
        for _, server, *_ in calls:
            await server.say(2)
        await stopping
        await gateway.start()
        for call, server, line, expected, before in calls:
            line.release_connections()
            assert await call.end() == "counted to 2"
            assert told(call) == expected
            assert server.calls == before + 1
