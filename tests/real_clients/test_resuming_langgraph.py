"""LangGraph's libraries reconnect to a run of a server that cannot resume, and join it."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.clients.line import Line
from tests.kit.routed_gateway import Gateway, Route, running
from tests.kit.upstream import Disconnect, Pause
from tests.real_clients.resuming import Library, Programs, drains, each, libraries
from tests.real_clients.running import Run
from tests.real_clients.runs import VALUES, Graph, GraphServer

pytestmark = pytest.mark.asyncio(loop_scope="session")

BASES = ["", "/base/path"]
EACH = each("langgraph")


def routes(server: GraphServer) -> list[Route]:
    return [
        {"path": path, "upstream": server.url, "mode": "resumable", "heartbeat_seconds": 0.1, "resume": {"preset": "langgraph"}}
        for path in ("/", "/base/path")
    ]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def server() -> AsyncIterator[GraphServer]:
    async with GraphServer() as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def graphs(server: GraphServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    async with running(routes(server), tmp_path_factory.mktemp("graphs")) as gateway:
        yield gateway


@pytest_asyncio.fixture(loop_scope="session")
async def line(graphs: Gateway) -> AsyncIterator[Line]:
    async with Line(graphs.port) as line:
        yield line


def values(run: Run) -> list[int]:
    return [json.loads(event.data)["n"] for event in run.events if event.type == "values"]


async def is_whole(run: Run, graph: Graph, *, created: bool = True) -> None:
    """Wait for the end of a call, which must have had every value once."""
    assert await run.end() == (graph.run if created else "")
    assert values(run) == list(range(VALUES))
    assert [event.type for event in (run.events[0], run.events[-1])] == ["metadata", "end"]


async def stream(library: Library, programs: Programs, url: str, graph: Graph) -> Run:
    return await library.call(programs, url, "stream", thread="t1", assistant=graph.name)


@EACH
async def test_run_that_is_cut_once_or_five_times_continues(
    library: Library, programs: Programs, server: GraphServer, graphs: Gateway
) -> None:
    async def one(base: str, ids: bool, cuts: int) -> None:
        pauses = {value: Pause() for value in range(1, 2 * cuts, 2)}
        graph = server.graph({value: [pause] for value, pause in pauses.items()}, ids=ids)
        async with Line(graphs.port) as line:
            run = await stream(library, programs, line.url + base, graph)
            for value, pause in pauses.items():
                await run.hears(value + 1)
                line.cut()
                pause.go()
            await is_whole(run, graph)
            assert line.sent.count(f"GET {base}{graph.location}/stream HTTP/1.1".encode()) == cuts
        assert all(event.id.startswith("own-") for event in run.events) == ids
        assert len(graph.calls) == 1

    async with asyncio.TaskGroup() as group:  # each cut takes a client more than a second
        for base, ids, cuts in itertools.product(BASES, (False, True), (1, 5)):
            group.create_task(one(base, ids, cuts))


@EACH
@pytest.mark.parametrize("base", BASES)
async def test_run_is_joined_while_it_runs_and_afterwards(
    base: str, library: Library, programs: Programs, server: GraphServer, line: Line
) -> None:
    pause = Pause()
    graph = server.graph({5: [pause]})
    run = await stream(library, programs, line.url + base, graph)
    await run.hears(6)
    joined = await library.call(programs, line.url + base, "join", thread="t1", run=graph.run)
    await joined.hears(6)
    pause.go()
    await is_whole(run, graph)
    await is_whole(joined, graph, created=False)
    late = await library.call(programs, line.url + base, "join", thread="t1", run=graph.run)
    await is_whole(late, graph, created=False)
    assert len(graph.calls) == 1


@EACH
async def test_join_with_another_mode_reaches_the_server(library: Library, programs: Programs, server: GraphServer, line: Line) -> None:
    graph = server.graph()
    await is_whole(await stream(library, programs, line.url, graph), graph)
    already = len(server.passed)
    joined = await library.call(programs, line.url, "join", thread="t1", run=graph.run, mode="updates")
    await joined.end()
    assert [event.type for event in joined.events] == ["updates", "end"]
    [passed] = server.passed[already:]
    assert passed.target.startswith(f"{graph.location}/stream?")
    assert "stream_mode=updates" in passed.target


@EACH
async def test_run_that_the_server_lost_is_not_taken_for_a_complete_one(
    library: Library, programs: Programs, server: GraphServer, line: Line
) -> None:
    graph = server.graph({5: [Disconnect()]})
    run = await stream(library, programs, line.url, graph)
    await run.hears(6)
    assert values(run) == list(range(5))
    await line.carries(f"GET {graph.location}/stream ".encode(), times=2)  # it goes on trying for half a minute


@pytest.mark.npm
async def test_runs_outlast_a_drain_and_a_restart(programs: Programs, server: GraphServer, tmp_path: Path) -> None:
    async with running(routes(server), tmp_path, drain_seconds=60) as gateway, contextlib.AsyncExitStack() as stack:
        calls = []
        for library in libraries("langgraph"):
            for is_followed in (True, False):
                pause = Pause()
                graph = server.graph({5: [pause]})
                line = await stack.enter_async_context(Line(gateway.port))
                calls.append((graph, pause, line, is_followed, await stream(library, programs, line.url, graph)))
        for _, _, line, is_followed, run in calls:
            await run.hears(6)
            if not is_followed:
                line.hold_connections()
            line.cut()
            if is_followed:
                await line.passes(b"\r\nStream-Id: ", times=2)
        stopping = await drains(gateway)
        for _, pause, *_ in calls:
            pause.go()
        await stopping
        for graph, _, _, is_followed, run in calls:
            if is_followed:
                await is_whole(run, graph)
        await gateway.start()
        for graph, _, line, is_followed, run in calls:
            if not is_followed:
                line.release_connections()
                await is_whole(run, graph)
            assert len(graph.calls) == 1
