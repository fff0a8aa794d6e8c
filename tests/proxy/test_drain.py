"""SIGTERM: no client loses half an event or takes the drain for the end of the stream, and the process exits in time."""

import asyncio
import contextlib
import re
from pathlib import Path

import pytest

from tests.kit.downstream import AT_ONCE_SECONDS, Downstream, End, connected
from tests.kit.routed_gateway import Gateway, running
from tests.kit.stack import EXIT_SECONDS
from tests.kit.stage import Stage
from tests.kit.upstream import Flood, Pause, Silence, chunk
from tests.proxy.streams import HEAD

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("gateway")]

DRAIN_SECONDS = 3
BLOCK = b"data: whole\n\n"
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
RETRY = re.compile(rb"retry: ?(\d+)\n")


def drained(stage: Stage, directory: Path, seconds: float = DRAIN_SECONDS) -> contextlib.AbstractAsyncContextManager[Gateway]:
    route = {"path": "/", "upstream": stage.url, "connect_timeout_seconds": 60} | stage.trust
    return running([route], directory, drain_seconds=seconds)


async def test_thousand_streams_end_at_a_block_boundary_and_the_process_exits_0_in_time(stage: Stage, tmp_path: Path) -> None:
    scene = stage.scene(HEAD, chunk(BLOCK + b"data: half"), Silence())
    async with drained(stage, tmp_path) as subject, connected(subject.port, 1000) as downstreams:
        for downstream in downstreams:
            await downstream.ask("/stream", headers=scene.headers)
        answers = [await downstream.answer() for downstream in downstreams]
        for answer in answers:
            assert await answer.receive(len(BLOCK)) == BLOCK
        stopping = asyncio.create_task(subject.stop(within=DRAIN_SECONDS + EXIT_SECONDS))
        bodies = await asyncio.gather(*(answer.to_end() for answer in answers))
        await stopping
    assert {answer.end for answer in answers} <= {End.CUT_SHORT, End.RESET}
    last = [body.removeprefix(BLOCK) for body in bodies]
    assert all(RETRY.fullmatch(block) for block in last), set(last)
    assert len({*last}) > 100, "clients would reconnect in one wave"


async def test_streams_that_are_flat_out_end_at_a_block_boundary(stage: Stage, tmp_path: Path) -> None:
    scene = stage.scene(HEAD, Flood(BLOCK * 100 + b": cut so that chunks end inside blocks\n\ndata: a", count=None))
    block_end = re.compile(rb"\n\nretry: \d+\n\Z")
    async with drained(stage, tmp_path) as subject, connected(subject.port, 10) as downstreams:
        for downstream in downstreams:
            await downstream.ask("/stream", headers=scene.headers)
        answers = [await downstream.answer() for downstream in downstreams]
        for answer in answers:
            await answer.receive(100_000)
        stopping = asyncio.create_task(subject.stop(within=DRAIN_SECONDS + EXIT_SECONDS))
        bodies = await asyncio.gather(*(answer.to_end(timeout=20) for answer in answers))
        await stopping
    assert all(block_end.search(body) for body in bodies), [body[-60:] for body in bodies]
    assert {answer.end for answer in answers} <= {End.CUT_SHORT, End.RESET}


async def test_requests_that_do_not_end_are_aborted_after_the_grace_time(stage: Stage, tmp_path: Path) -> None:
    """Use a reader that stalls, and an upstream that does not answer."""
    flood, silence = stage.scene(HEAD, Flood(BLOCK * 100)), stage.scene(Silence())
    async with drained(stage, tmp_path, 2) as subject, Downstream(subject.port, receive_buffer=4096) as stalled:
        async with Downstream(subject.port) as waiting:
            await stalled.ask("/stream", headers=flood.headers)
            await waiting.ask("/silent", headers=silence.headers)
            await stalled.answer()
            await silence.asked()
            await subject.stop(within=2 + EXIT_SECONDS)
        await flood.left()
        await silence.left()


async def test_plain_answer_in_progress_is_finished_and_idle_connections_are_closed_at_once(stage: Stage, tmp_path: Path) -> None:
    pause = Pause()
    scene, empty = stage.scene(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab", pause, b"cd"), stage.scene(NO_CONTENT)
    async with drained(stage, tmp_path, 30) as subject, connected(subject.port, 20) as idle, Downstream(subject.port) as downstream:
        for connection in idle[:10]:
            await connection.ask("/x", headers=empty.headers)
            await connection.answer()
        await downstream.ask("/file", headers=scene.headers)
        answer = await downstream.answer()
        await answer.receive(2)
        stopping = asyncio.create_task(subject.stop(within=20))  # of the 30 that it may take
        await until_refused(subject)
        pause.go()
        assert await answer.to_end() == b"abcd"
        assert answer.end is End.COMPLETE
        await stopping


async def until_refused(subject: Gateway) -> None:
    """Return when the proxy accepts no new connection any more."""
    async with asyncio.timeout(AT_ONCE_SECONDS):
        while True:
            try:
                async with Downstream(subject.port):
                    await asyncio.sleep(0.02)
            except ConnectionRefusedError:
                return
