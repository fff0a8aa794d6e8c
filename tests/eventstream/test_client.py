"""EventSource over real sockets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from eventstream import Reconnection
from eventstream.client import EventSource
from tests.scripted_upstream import EVENT_STREAM_HEAD, LAST_CHUNK, Pause, Script, ScriptedUpstream, Silence, chunk

GUARD_SECONDS = 10
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"


@pytest.fixture(autouse=True)
async def guard() -> AsyncIterator[None]:
    async with asyncio.timeout(GUARD_SECONDS):
        yield


def at_once() -> Reconnection:
    return Reconnection(initial_seconds=0, maximum_seconds=0)


def stream(*bodies: bytes) -> bytes:
    return EVENT_STREAM_HEAD + b"".join(chunk(body) for body in bodies)


@asynccontextmanager
async def following(*scripts: Script, **options: Any) -> AsyncIterator[tuple[ScriptedUpstream, EventSource]]:
    """An upstream that plays `scripts`, one a request, and an event source that follows it without delays."""
    options.setdefault("reconnection", at_once())
    async with ScriptedUpstream(*scripts) as upstream, EventSource(upstream.url, **options) as source:
        yield upstream, source


async def test_stream_reconnects_after_its_end_and_ends_for_good_with_204() -> None:
    first = stream(b"id: 1\ndata: a\n\nid: 2\ndata: b\n\nid: 3\ndata: lost") + LAST_CHUNK
    async with following([first], [NO_CONTENT]) as (upstream, source):
        assert [event.data async for event in source] == ["a", "b"]
        assert source.state == "closed"
        assert source.connections == 1
        assert source.last_event_id == "2"
        assert [asked.header("Last-Event-ID") for asked in upstream.requests] == [None, "2"]


async def test_malformed_http_chunk_counts_as_a_lost_connection() -> None:
    pause = Pause()
    async with following([stream(b"data: a\n\n"), pause, b"zz\r\nno size\r\n", Silence()], [NO_CONTENT]) as (_, source):
        assert (await anext(source)).data == "a"
        pause.go()
        assert [event async for event in source] == []


async def test_close_ends_a_waiting_iteration() -> None:
    async with following([EVENT_STREAM_HEAD, Silence()]) as (upstream, source):
        reading = asyncio.ensure_future(anext(source, None))
        await upstream.wait_for_requests(1)
        await source.close()
        assert await reading is None


async def test_restart_cuts_a_waiting_back_off_short() -> None:
    unavailable = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"
    patient = Reconnection(initial_seconds=3600)
    async with following([unavailable], [stream(b"data: a\n\n"), Silence()], reconnection=patient) as (_, source):
        reading = asyncio.ensure_future(anext(source))
        while source.last_error is None:
            await asyncio.sleep(0)
        source.restart()
        source.restart()
        assert (await reading).data == "a"
