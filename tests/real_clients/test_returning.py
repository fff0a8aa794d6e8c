"""Clients whose stream is cut resume without loss, or show an error. None takes a part for the whole."""

import pytest

from tests.clients.line import Line
from tests.kit.upstream import EVENT_STREAM_HEAD, Disconnect, Pause
from tests.real_clients.clients import EVENT_SOURCES, Client, each
from tests.real_clients.running import run
from tests.real_clients.source import Source, event

pytestmark = pytest.mark.asyncio(loop_scope="session")

DATA = ["eins", "zwei", "drei", "vier"]
ASKED = {"method": "POST", "body": "{}", "headers": {"Content-Type": "application/json"}}


@each(EVENT_SOURCES, lambda client: client.returns)
async def test_client_of_a_shared_stream_resumes(client: Client, source: Source, line: Line) -> None:
    pause, rest = Pause(), Pause()
    blocks = [event(data, f"a-{number}") for number, data in enumerate(DATA, 1)]
    stream = source.stream([EVENT_STREAM_HEAD, *blocks[:2], pause, blocks[2], rest, blocks[3], Pause()])
    async with run(client, f"{line.url}/shared/{stream.name}") as running:
        await running.hears(2)
        line.cut()
        pause.go()
        await running.hears(3)
        rest.go()
        await running.hears(4)
    assert running.data == DATA
    assert running.losses
    assert len(stream.requests) == 1


@each(EVENT_SOURCES, lambda client: client.returns and client.posts)
async def test_client_of_a_kept_answer_resumes(client: Client, source: Source, line: Line) -> None:
    pause, rest = Pause(), Pause()
    blocks = [event(data) for data in DATA]
    stream = source.stream([EVENT_STREAM_HEAD, *blocks[:2], pause, blocks[2], rest, blocks[3], Pause()])
    async with run(client, f"{line.url}/resumable/{stream.name}", **ASKED) as running:
        await running.hears(2)
        line.cut()
        pause.go()
        await running.hears(3)
        rest.go()
        await running.hears(4)
    assert running.data == DATA
    assert running.losses
    assert len(stream.requests) == 1


@each(EVENT_SOURCES, lambda client: client.returns)
async def test_client_reconnects_through_a_direct_route_when_the_upstream_was_cut(client: Client, source: Source, line: Line) -> None:
    pause = Pause()
    blocks = [event(data, str(number)) for number, data in enumerate(DATA, 1)]
    stream = source.stream([EVENT_STREAM_HEAD, *blocks[:2], pause, blocks[2][:-4], Disconnect()], [EVENT_STREAM_HEAD, *blocks[2:], Pause()])
    async with run(client, f"{line.url}/direct/{stream.name}") as running:
        await running.hears(2)
        pause.go()
        await running.hears(4)
    assert running.data == DATA
    assert [asked.header("Last-Event-ID") for asked in stream.requests] == [None, "2"]


@pytest.mark.parametrize("mode", ["direct", "resumable"])
@each(EVENT_SOURCES, lambda client: not client.returns)
async def test_client_that_does_not_reconnect_shows_an_error_when_the_upstream_was_cut(
    client: Client, mode: str, source: Source, line: Line
) -> None:
    pause = Pause()
    stream = source.stream([EVENT_STREAM_HEAD, event("eins"), event("zwei"), pause, event("drei")[:-4], Disconnect()])
    async with run(client, f"{line.url}/{mode}/{stream.name}", **ASKED) as running:
        await running.hears(2)
        pause.go()
        await running.error()
    assert running.data == ["eins", "zwei"]
