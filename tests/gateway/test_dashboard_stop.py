"""Names of kept answers on the dashboard, which are never whole, and the button that stops one."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from structlog.testing import capture_logs

from tests.kit.dashboard import Admin, Looker, admin, only
from tests.kit.downstream import Answer, Downstream, End
from tests.kit.stack import route_table
from tests.kit.upstream import EVENT_STREAM_HEAD, LAST_CHUNK, Pause, Script, ScriptedUpstream, Silence, chunk
from tests.kit.waiting import GUARD_SECONDS
from tests.kit.workers import crew

NAME = "chat-4711-of-alice"
SHOWN = "chat-471…"
FIRST = b"data: a\n\n"
RUNNING: Script = [EVENT_STREAM_HEAD, chunk(FIRST), Silence()]
CHAT = {"path": "/chat", "mode": "resumable", "resume": {"preset": "ai-sdk"}}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty snapshots per second, so that tests do not wait for them."""
    monkeypatch.setattr("gateway.observe.dashboard.events._INTERVAL_SECONDS", 0.05)


@asynccontextmanager
async def chatting(script: Script, directory: Path) -> AsyncIterator[tuple[Admin, Looker, ScriptedUpstream, AsyncExitStack]]:
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(ScriptedUpstream(script))
        routes = [CHAT | {"upstream": upstream.url}, {"path": "/direct", "upstream": upstream.url}]
        gateway = await stack.enter_async_context(admin(routes, directory))
        looker = await stack.enter_async_context(gateway.look())
        yield gateway, looker, upstream, stack


async def ask(port: int, stack: AsyncExitStack, name: str = NAME, *headers: tuple[str, str]) -> Answer:
    """Return an answer with this name, of which the first event has arrived."""
    downstream = await stack.enter_async_context(Downstream(port))
    await downstream.ask("/chat", "POST", [("Content-Type", "application/json"), *headers], json.dumps({"id": name}).encode())
    answer = await downstream.answer("POST")
    await answer.receive(len(FIRST))
    return answer


@pytest.mark.parametrize("headers", [[], [("Authorization", "Bearer alice")]])
@pytest.mark.parametrize(("name", "shown"), [(NAME, SHOWN), ("my chat", "my …"), ("abc", "ab…"), ("x", "…")])
async def test_name_is_shown_shortened_and_without_the_address(
    headers: list[tuple[str, str]], name: str, shown: str, tmp_path: Path
) -> None:
    async with chatting(RUNNING, tmp_path) as (gateway, looker, _, stack):
        await ask(gateway.port, stack, name, *headers)
        snapshot = await looker.snapshot(lambda snapshot: snapshot["streams"])
        assert only(snapshot, "streams")["name"] == shown
        await gateway.stop(only(snapshot, "streams")["key"])
        snapshot = await looker.snapshot(lambda snapshot: any("name" in each for each in snapshot["ended"]))
        assert only(snapshot, "ended", name=shown)["verdict"] == "stopped"
        assert f'"{name}"' not in json.dumps(snapshot)
        assert "127.0.0.1 " not in json.dumps(snapshot)


async def test_name_in_a_path_is_whole_neither_in_a_log_nor_in_a_sample(tmp_path: Path) -> None:
    with capture_logs() as logs:
        async with chatting(RUNNING, tmp_path) as (gateway, looker, _, stack):
            url = f"http://127.0.0.1:{gateway.port}/chat/{NAME}"
            await ask(gateway.port, stack)
            async with gateway.session.get(f"{url}/stream") as again:
                await again.content.readuntil(b"\n\n")
            async with gateway.session.post(f"{url}/stop") as stopped:
                assert stopped.status == 204
            snapshot = await looker.snapshot(lambda snapshot: len(snapshot["ended"]) == 3)
    path = f"/chat/{SHOWN}/stream"
    assert only(snapshot, "ended", path=path)["method"] == "GET"
    assert path in [each.get("path") for each in logs]
    assert NAME not in json.dumps(snapshot) + json.dumps(logs, default=str)


async def test_running_answer_is_stopped_upstream_too(tmp_path: Path) -> None:
    async with chatting(RUNNING, tmp_path) as (gateway, looker, upstream, stack):
        answer = await ask(gateway.port, stack)
        key = only(await looker.snapshot(lambda snapshot: snapshot["streams"]), "streams")["key"]
        assert await gateway.stop(key) == (204, "")
        async with asyncio.timeout(GUARD_SECONDS):
            await upstream.requests[0].left.wait()
        await answer.to_end()
        assert answer.end is not End.COMPLETE
        snapshot = await looker.snapshot(lambda snapshot: len(snapshot["ended"]) == 2 and not snapshot["streams"])
        assert only(snapshot, "ended", verdict="stopped")["reason"] == "stopped on the dashboard"
        assert (await gateway.stop(key))[0] == 404


async def test_answer_that_has_ended_and_other_streams_are_not_stopped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    more = Pause()
    script: Script = [EVENT_STREAM_HEAD, chunk(FIRST), more, LAST_CHUNK]
    async with chatting(script, tmp_path) as (gateway, looker, _, stack), Downstream(gateway.port) as direct:
        answer = await ask(gateway.port, stack)
        await direct.ask("/direct")
        await (await direct.answer()).receive(len(FIRST))
        snapshot = await looker.snapshot(lambda snapshot: len(snapshot["streams"]) == 2)
        kept, other = (only(snapshot, "streams", mode=mode)["key"] for mode in ("resumable", "direct"))
        assert await gateway.stop(other) == (409, "only a kept answer that runs can be stopped")
        monkeypatch.setattr("gateway.observe.dashboard.events._INTERVAL_SECONDS", 60)
        await looker.snapshot()  # the last one that names the stream
        more.go()
        await answer.to_end()
        assert answer.end is End.COMPLETE
        assert await gateway.stop(kept) == (409, "only a kept answer that runs can be stopped")
        assert (await gateway.stop("0-999"))[0] == 404
        assert (await gateway.stop("nonsense"))[0] == 404


async def test_answer_of_any_worker_is_stopped(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(ScriptedUpstream(RUNNING))
        config = tmp_path / "gateway.toml"
        config.write_text(route_table(CHAT | {"upstream": upstream.url}))
        workers = await stack.enter_async_context(crew(CONFIG=str(config), DATA_DIR=str(tmp_path)))
        answers = [await ask(workers.port, stack, f"{number}-{NAME}") for number in range(20)]
        session = await stack.enter_async_context(aiohttp.ClientSession())
        gateway = Admin(workers.gateway.admin, workers.port, session)
        looker = await stack.enter_async_context(gateway.look())
        snapshot = await looker.snapshot(lambda snapshot: len(snapshot["streams"]) == len(answers))
        assert {stream["worker"] for stream in snapshot["streams"]} == {0, 1}
        for stream in snapshot["streams"]:
            assert await gateway.stop(stream["key"]) == (204, "")
        for answer in answers:
            await answer.to_end()
            assert answer.end is not End.COMPLETE
        async with asyncio.timeout(GUARD_SECONDS):
            for asked in upstream.requests:
                await asked.left.wait()
        assert (await gateway.stop("7-1"))[0] == 404
        assert (await gateway.stop("0-999"))[0] == 404
