"""Clients get every event once, whatever heartbeats the gateway sends in between."""

import pytest

from tests.clients.line import Line
from tests.kit.upstream import EVENT_STREAM_HEAD, Pause
from tests.real_clients.clients import EVENT_SOURCES, Client, each
from tests.real_clients.running import run
from tests.real_clients.source import Source, event

pytestmark = pytest.mark.asyncio(loop_scope="session")

HEARTBEAT = b"\r\n:\n"
"""The beginning of an HTTP chunk with a heartbeat, after its size."""
DATA = ["eins", "zwei 🌊", "drei"]


@each(EVENT_SOURCES)
@pytest.mark.parametrize(("mode", "ids"), [("direct", ["", "", ""]), ("shared", ["a-1", "a-2", "a-3"])], ids=["without ids", "with ids"])
async def test_client_gets_every_event_between_heartbeats_once(
    client: Client, ids: list[str], mode: str, source: Source, line: Line
) -> None:
    pauses = [Pause(), Pause()]
    blocks = [event(data, id) for data, id in zip(DATA, ids, strict=True)]
    stream = source.stream([EVENT_STREAM_HEAD, blocks[0], pauses[0], blocks[1], pauses[1], blocks[2], Pause()])
    async with run(client, f"{line.url}/{mode}/{stream.name}") as running:
        for heard, pause in enumerate(pauses, 1):
            await running.hears(heard)
            await line.passes(HEARTBEAT, times=2 * heard)
            pause.go()
        await running.hears(len(DATA))
    assert running.data == DATA
    assert [shown.id for shown in running.events] == ids
    assert running.losses == []
    assert len(stream.requests) == 1
