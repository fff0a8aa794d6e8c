"""The tail of a stream: its bytes as they come, where chunks and blocks were cut, and nothing left behind."""

import asyncio
import gc
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.observe.dashboard.taps import Tail
from tests.kit.dashboard import Admin, Looker, admin, only
from tests.kit.downstream import Downstream
from tests.kit.upstream import EVENT_STREAM_HEAD, LAST_CHUNK, Disconnect, Pause, Script, ScriptedUpstream, Silence, chunk
from tests.kit.waiting import GUARD_SECONDS

FIRST = b"id: 1\ndata: a\n\n"
ROUTES: dict[str, dict[str, Any]] = {
    "direct": {"path": "/direct"},
    "shared": {"path": "/shared", "mode": "shared", "initial": "history"},
    "resumable": {"path": "/kept", "mode": "resumable"},
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty snapshots per second, so that tests do not wait for them."""
    monkeypatch.setattr("gateway.observe.dashboard.events._INTERVAL_SECONDS", 0.05)


class Scene(AsyncExitStack):
    """A stream of one mode that has sent one event, its subscriber, and an open dashboard."""

    def __init__(self, mode: str, directory: Path, *then: Any) -> None:
        super().__init__()
        self.more = Pause()
        self._script: Script = [EVENT_STREAM_HEAD, chunk(FIRST), self.more, *then]
        self._route = ROUTES[mode]
        self._directory = directory

    async def open(self) -> tuple[Admin, Looker, str]:
        upstream = await self.enter_async_context(ScriptedUpstream(self._script, [EVENT_STREAM_HEAD, Silence()]))
        gateway = await self.enter_async_context(admin([self._route | {"upstream": upstream.url}], self._directory))
        self.subscriber = await self.enter_async_context(Downstream(gateway.port))
        method = "POST" if self._route.get("mode") == "resumable" else "GET"
        await self.subscriber.ask(self._route["path"], method, [("Accept", "text/event-stream")], b"x" if method == "POST" else b"")
        await (await self.subscriber.answer(method)).receive(len(FIRST))
        looker = await self.enter_async_context(gateway.look())
        return gateway, looker, only(await looker.snapshot(), "streams")["key"]


def tails() -> int:
    gc.collect()
    return sum(isinstance(each, Tail) for each in gc.get_objects())


async def until_no_tail_is_left() -> None:
    async with asyncio.timeout(GUARD_SECONDS):
        while tails():
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("mode", ROUTES)
async def test_block_is_shown_with_the_cuts_of_the_chunks_that_brought_it(mode: str, tmp_path: Path) -> None:
    between = Pause()
    async with Scene(mode, tmp_path, chunk(b"data: h"), between, chunk(b"ello\n\n"), Silence()) as scene:
        gateway, _, key = await scene.open()
        async with gateway.tail(key) as tail:
            await tail.event("history")
            scene.more.go()
            _, first = await tail.event("chunks")
            between.go()
            _, second = await tail.event("chunks")
        assert [(record["chunk"], record["pending"], record["blocks"]) for record in first["chunks"]] == [(7, 7, [])]
        [record] = second["chunks"]
        assert (record["chunk"], record["pending"]) == (6, 0)
        assert record["blocks"][0]["parts"] == ["data: h", "ello\n\n"]
        await until_no_tail_is_left()


@pytest.mark.parametrize("mode", ["shared", "resumable"])
async def test_tail_begins_with_the_kept_blocks(mode: str, tmp_path: Path) -> None:
    async with Scene(mode, tmp_path, Silence()) as scene:
        gateway, _, key = await scene.open()
        async with gateway.tail(key) as tail:
            assert await tail.event() == ("history", {"blocks": [{"parts": [FIRST.decode()], "size": len(FIRST)}]})


async def test_blocks_of_the_gateway_are_shown_beside_those_of_the_upstream(tmp_path: Path) -> None:
    async with Scene("resumable", tmp_path, chunk(b": hello\n\ndata: b\n\n"), Silence()) as scene:
        gateway, _, key = await scene.open()
        async with gateway.tail(key) as tail:
            scene.more.go()
            _, gathered = await tail.event("chunks")
        comment, event = gathered["chunks"][0]["blocks"]
        assert (comment["parts"], comment["sent"]) == ([": hello\n\n"], None)
        assert event["parts"] == ["data: b\n\n"]
        assert event["sent"].startswith("data: b\nid: ")
        assert event["sent"].endswith("-2\n\n")


@pytest.mark.parametrize(("mode", "verdict"), [("direct", "complete"), ("resumable", "complete")])
async def test_end_of_the_stream_is_told_behind_all_that_came(mode: str, verdict: str, tmp_path: Path) -> None:
    async with Scene(mode, tmp_path, chunk(b"data: b\n\n"), LAST_CHUNK) as scene:
        gateway, _, key = await scene.open()
        async with gateway.tail(key) as tail:
            await tail.event("history")
            scene.more.go()
            assert (await tail.event())[0] == "chunks"
            assert await tail.event() == ("end", {"verdict": verdict, "reason": ""})
            await tail.ended()
        await until_no_tail_is_left()


async def test_tail_of_a_shared_stream_outlives_its_upstream(tmp_path: Path) -> None:
    async with Scene("shared", tmp_path, chunk(b"retry: 10\n\ndata: cut"), Disconnect()) as scene:
        gateway, looker, key = await scene.open()
        async with gateway.tail(key) as tail:
            scene.more.go()
            _, gathered = await tail.event("chunks")
            assert gathered["chunks"][0]["pending"] == 9
            await looker.snapshot(lambda snapshot: any(mark["kind"] == "back" for mark in snapshot["marks"]))
            assert only(await looker.snapshot(), "streams")["key"] == key


async def test_tail_ends_when_the_gateway_stops(tmp_path: Path) -> None:
    async with AsyncExitStack() as outlives:
        session = await outlives.enter_async_context(aiohttp.ClientSession())
        scene = Scene("direct", tmp_path, Silence())
        async with scene:
            gateway, _, key = await scene.open()
            answer = await outlives.enter_async_context(session.get(f"{gateway.url}/dashboard/streams/{key}/tail"))
            tail = Looker(answer)
            await tail.event("history")
        await tail.ended()


@pytest.mark.parametrize(("key", "status"), [("0-99", 404), ("0-x", 404), ("0-1-1", 404)])
async def test_unknown_stream_is_not_found(key: str, status: int, tmp_path: Path) -> None:
    async with admin([ROUTES["direct"] | {"upstream": "http://127.0.0.1:9"}], tmp_path) as gateway:
        async with gateway.session.get(f"{gateway.url}/dashboard/streams/{key}/tail") as answer:
            assert answer.status == status
        assert "open the dashboard and choose a stream that it shows" in (await gateway.refusal("/dashboard/streams/0-99/tail"))[1]


async def test_one_tail_too_many_is_refused(tmp_path: Path) -> None:
    async with Scene("direct", tmp_path, Silence()) as scene:
        gateway, _, key = await scene.open()
        for _ in range(16):
            await scene.enter_async_context(gateway.tail(key))
        status, detail = await gateway.refusal(f"/dashboard/streams/{key}/tail")
        assert (status, detail[:2]) == (503, "16")
