"""A gateway that is replaced ends its streams with a line that no client takes for an event."""

import contextlib
from pathlib import Path

import pytest

from tests.kit.routed_gateway import running, shared
from tests.kit.upstream import EVENT_STREAM_HEAD, Pause
from tests.real_clients.clients import EVENT_SOURCES, MARKS
from tests.real_clients.running import run
from tests.real_clients.source import Source, event

pytestmark = pytest.mark.asyncio(loop_scope="session")

LANGUAGES = sorted({client.language for client in EVENT_SOURCES})


@pytest.mark.parametrize("language", [pytest.param(language, marks=MARKS[language]) for language in LANGUAGES])
async def test_deploy_loses_no_event_and_invents_none(language: str, source: Source, tmp_path: Path) -> None:
    stream = source.stream(
        [EVENT_STREAM_HEAD, event("eins", "a-1"), Pause()],
        lambda asked: [
            EVENT_STREAM_HEAD,
            *([] if asked.header("Last-Event-ID") else [event("eins", "a-1")]),
            event("zwei", "a-2"),
            Pause(),
        ],
    )
    clients = [client for client in EVENT_SOURCES if client.language == language]
    async with running([shared("/", source.url, initial="history")], tmp_path) as gateway, contextlib.AsyncExitStack() as stack:
        runs = {
            client: await stack.enter_async_context(run(client, f"http://127.0.0.1:{gateway.port}/{stream.name}")) for client in clients
        }
        for listening in runs.values():
            await listening.hears(1)
        await gateway.stop()
        await gateway.start()
        for client, listening in runs.items():
            if client.returns:
                await listening.hears(2)
            else:
                await listening.error()
    assert {client.name: listening.data for client, listening in runs.items()} == {
        client.name: ["eins", "zwei"] if client.returns else ["eins"] for client in clients
    }
