"""Clients that have all of a kept answer reconnect once more, and then stop."""

import asyncio

import pytest

from tests.clients.line import Line
from tests.kit.upstream import EVENT_STREAM_HEAD, LAST_CHUNK, chunk
from tests.real_clients.clients import EVENT_SOURCES, Client, each
from tests.real_clients.running import run
from tests.real_clients.source import Source, event
from tests.real_clients.test_returning import ASKED

pytestmark = pytest.mark.asyncio(loop_scope="session")

RETRY_MS = 20
WATCHED_SECONDS = 1.0
"""How long the test watches a client that has stopped: long enough, by the retry time, to show whether it has."""
ANSWER = [EVENT_STREAM_HEAD, chunk(b"retry: %d\n" % RETRY_MS), event("eins"), event("zwei"), LAST_CHUNK]


@each(EVENT_SOURCES, lambda client: client.stops_at_204)
async def test_client_of_a_get_stops_when_it_has_everything(client: Client, source: Source, line: Line) -> None:
    stream = source.stream(ANSWER)
    async with run(client, f"{line.url}/kept/{stream.name}") as running:
        assert await running.end() == "the server has no more"
    assert running.data == ["eins", "zwei"]
    assert line.received.count(b"HTTP/1.1 204 ") == 1
    assert len(stream.requests) == 1


@each([client for client in EVENT_SOURCES if client.name in ("eventsource 3", "eventsource 4", "eventsource-client")])
async def test_client_of_a_post_stops_when_it_has_everything(client: Client, source: Source, line: Line) -> None:
    stream = source.stream(ANSWER)
    async with run(client, f"{line.url}/kept/{stream.name}", **ASKED) as running:
        await running.hears(2)
        await line.passes(b"HTTP/1.1 200 ", times=2)
        await asyncio.sleep(WATCHED_SECONDS)
    assert running.data == ["eins", "zwei"]
    assert line.received.count(b"HTTP/1.1 ") == 2
    assert len(stream.requests) == 1
