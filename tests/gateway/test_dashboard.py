"""Data for the dashboard: everything, once a second, only while a page is open, and without secrets."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from eventstream import Parser
from gateway.observe.dashboard.events import Dashboard, add_events
from gateway.observe.dashboard.services import Services
from tests.kit.dashboard import Admin, Looker, admin, only
from tests.kit.downstream import Downstream
from tests.kit.reloading import reloading, route
from tests.kit.upstream import EVENT_STREAM_HEAD, Asked, Disconnect, Pause, Script, ScriptedUpstream, Silence, chunk
from tests.kit.waiting import GUARD_SECONDS

SECRET = "s3cr3t"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty snapshots per second, so that tests do not wait for them."""
    monkeypatch.setattr("gateway.observe.dashboard.events._INTERVAL_SECONDS", 0.05)


class Plot:
    """Two events at once, what the test wants when it says `go`, and then silence."""

    def __init__(self, *then: Any) -> None:
        self.more = Pause()
        self.then = then or (chunk(b"id: 3\ndata: c\n\n"), Silence())

    def __call__(self, asked: Asked) -> Script:
        if asked.header("Last-Event-ID"):
            return [EVENT_STREAM_HEAD, Silence()]
        return [EVENT_STREAM_HEAD, chunk(b"id: 1\ndata: a\n\nid: 2\ndata: b\n\n"), self.more, *self.then]


def routes(upstream: ScriptedUpstream) -> list[dict[str, Any]]:
    return [
        {"path": "/direct", "upstream": upstream.url},
        {"path": "/shared", "upstream": upstream.url, "mode": "shared", "initial": "history"},
        {"path": "/kept", "upstream": upstream.url, "mode": "resumable"},
    ]


@asynccontextmanager
async def following(admin: Admin, target: str, method: str = "GET", body: bytes = b"") -> AsyncIterator[Downstream]:
    """Open a subscriber that has received its first two events."""
    async with Downstream(admin.port) as downstream:
        headers = [("Accept", "text/event-stream"), ("X-Token", SECRET)]
        await downstream.ask(target, method, headers, body)
        answer = await downstream.answer(method)
        await answer.receive(len(b"id: 1\ndata: a\n\nid: 2\ndata: b\n\n"))
        yield downstream


async def test_each_stream_is_shown_with_the_facts_of_its_mode(tmp_path: Path) -> None:
    async with ScriptedUpstream(Plot()) as upstream, admin(routes(upstream), tmp_path) as gateway, AsyncExitStack() as stack:
        for target, method in (("/direct", "GET"), ("/shared/news", "GET"), ("/shared/news", "GET"), ("/kept", "POST")):
            await stack.enter_async_context(following(gateway, target, method, b"x" if method == "POST" else b""))
        looker = await stack.enter_async_context(gateway.look())
        snapshot = await looker.snapshot()
        direct, shared, kept = (only(snapshot, "streams", mode=mode) for mode in ("direct", "shared", "resumable"))
        assert (direct["route"], direct["path"], direct["subscribers"], direct["blocks"], direct["state"]) == (
            "/direct",
            "/direct",
            1,
            2,
            "open",
        )
        assert (direct["lag"], direct["history_bytes"], direct["last_id"]) == (None, None, None)
        assert (shared["route"], shared["path"], shared["subscribers"], shared["last_id"]) == ("/shared", "/shared/news", 2, "2")
        assert (shared["lag"], shared["slow"], shared["history_blocks"], shared["connections"]) == (0, 0, 2, 1)
        assert (kept["subscribers"], kept["blocks"], kept["state"], kept["history_blocks"]) == (1, 2, "running", 2)
        assert snapshot["subscribers"] == 4
        assert snapshot["state"] == "ready"
        assert {route["path"]: (route["streams"], route["subscribers"]) for route in snapshot["routes"]} == {
            "/direct": (1, 1),
            "/shared": (1, 2),
            "/kept": (1, 1),
        }


async def test_events_a_second_are_told_in_and_out(tmp_path: Path) -> None:
    plot = Plot()
    async with ScriptedUpstream(plot) as upstream, admin(routes(upstream), tmp_path) as gateway, AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(following(gateway, "/shared/news"))
        looker = await stack.enter_async_context(gateway.look())
        assert (await looker.snapshot())["in"] is None  # nothing to compare with
        plot.more.go()
        snapshot = await looker.snapshot(lambda snapshot: snapshot["in"])
        assert snapshot["out"] == pytest.approx(3 * snapshot["in"])
        route = only(snapshot, "routes", path="/shared")
        assert (route["in"], route["out"]) == (snapshot["in"], snapshot["out"])
        assert route["bytes_out"] == pytest.approx(snapshot["out"] * len(b"id: 3\ndata: c\n\n"))
        assert only(snapshot, "streams", route="/shared")["rate"] == pytest.approx(snapshot["in"])


async def test_stream_that_ended_is_told_with_its_verdict(tmp_path: Path) -> None:
    plot = Plot(chunk(b"data: unfinished"), Disconnect())
    async with ScriptedUpstream(plot) as upstream, admin(routes(upstream), tmp_path) as gateway, gateway.look() as looker:
        async with following(gateway, "/direct?key=1"):
            pass
        left = only(await looker.snapshot(lambda snapshot: snapshot["ended"]), "ended")
        assert (left["verdict"], left["path"], left["blocks"], left["method"]) == ("left", "/direct", 2, "GET")
        async with following(gateway, "/direct"):
            plot.more.go()
            snapshot = await looker.snapshot(lambda snapshot: len(snapshot["ended"]) == 2)
        cut = only(snapshot, "ended", verdict="cut")
        assert cut["reason"]
        mark = only(snapshot, "marks")
        assert (mark["kind"], mark["route"], mark["path"], mark["at"]) == ("cut", "/direct", "/direct", pytest.approx(cut["at"], abs=1))


async def test_upstream_that_is_lost_and_found_again_is_marked(tmp_path: Path) -> None:
    plot = Plot(chunk(b"retry: 10\n\n"), Disconnect())
    async with (
        ScriptedUpstream(plot) as upstream,
        admin(routes(upstream), tmp_path) as gateway,
        gateway.look() as looker,
        following(gateway, "/shared/news?key=1"),
    ):
        plot.more.go()
        snapshot = await looker.snapshot(lambda snapshot: len(snapshot["marks"]) == 2)
        lost, back = snapshot["marks"]
        assert (lost["kind"], lost["route"], lost["path"], back["kind"]) == ("lost", "/shared", "/shared/news", "back")
        assert lost["detail"]
        assert only(await looker.snapshot(), "streams")["connections"] == 2


async def test_reload_is_marked_with_its_changes_or_with_the_error(tmp_path: Path) -> None:
    async with reloading(tmp_path, route("/", "http://127.0.0.1:9")) as gateway, aiohttp.ClientSession() as session:
        await gateway.reload(route("/new", "http://127.0.0.1:9"))
        await gateway.reload(route("/new", "http://127.0.0.1:9"))
        gateway.write("nonsense")
        await gateway.post()
        async with Admin(gateway.admin, gateway.port, session).look() as looker:
            marks = (await looker.snapshot())["marks"]
    assert [(mark["kind"], mark["detail"]) for mark in marks[:2]] == [
        ("reloaded", "added /new; removed /"),
        ("reloaded", "no changes"),
    ]
    assert marks[2]["kind"] == "not-reloaded"
    assert marks[2]["detail"].startswith(f"{gateway.config}: Expected '='")


async def test_gap_is_marked(tmp_path: Path) -> None:
    route = {"path": "/shared", "mode": "shared", "initial": "history", "ids": "assign"}
    async with (
        ScriptedUpstream(Plot()) as upstream,
        admin([route | {"upstream": upstream.url}], tmp_path) as gateway,
        gateway.look() as looker,
        following(gateway, "/shared"),
        Downstream(gateway.port) as late,
    ):
        await late.ask("/shared", headers=[("Last-Event-ID", "gone-1")])
        await late.answer()
        snapshot = await looker.snapshot(lambda snapshot: snapshot["marks"])
        assert (only(snapshot, "marks")["kind"], only(snapshot, "marks")["count"]) == ("gap", 1)


async def test_orphaned_kept_stream_is_among_the_ended_ones(tmp_path: Path) -> None:
    route = {"path": "/kept", "mode": "resumable", "orphan_seconds": 0}
    async with (
        ScriptedUpstream(Plot()) as upstream,
        admin([route | {"upstream": upstream.url}], tmp_path) as gateway,
        gateway.look() as looker,
    ):
        async with following(gateway, "/kept", "POST", b"x"):
            pass
        snapshot = await looker.snapshot(lambda snapshot: len(snapshot["ended"]) == 2)
        assert {ended["verdict"] for ended in snapshot["ended"]} == {"left", "orphaned"}
        assert snapshot["streams"] == []


async def test_slow_subscriber_is_told_by_how_far_it_is_behind(tmp_path: Path) -> None:
    plot = Plot(*[chunk(b"data: " + b"x" * 60_000 + b"\n\n")] * 100, Silence())
    async with (
        ScriptedUpstream(plot) as upstream,
        admin(routes(upstream), tmp_path) as gateway,
        gateway.look() as looker,
        following(gateway, "/shared") as quick,
        Downstream(gateway.port, receive_buffer=4096) as slow,
    ):
        await slow.ask("/shared")
        await slow.answer()
        plot.more.go()
        reading = asyncio.create_task(quick.ended(GUARD_SECONDS))
        # one that has just joined is behind by the first two for a moment, and a busy machine may make the quick one slow too
        snapshot = await looker.snapshot(lambda snapshot: any(stream["slow"] == 1 and stream["lag"] > 2 for stream in snapshot["streams"]))
        stream = only(snapshot, "streams")
        assert stream["subscribers"] == 2
        assert 2 < stream["lag"] <= 102
        reading.cancel()


async def test_nothing_secret_is_told(tmp_path: Path) -> None:
    plot = Plot(chunk(f"data: {SECRET}\n\n".encode()), Disconnect())
    async with ScriptedUpstream(plot) as upstream, AsyncExitStack() as stack:
        secret_routes = [route | {"request_headers": {"X-Key": SECRET}} for route in routes(upstream)]
        gateway = await stack.enter_async_context(admin(secret_routes, tmp_path))
        looker = await stack.enter_async_context(gateway.look())
        for path, method in (("/direct", "GET"), ("/shared", "GET"), ("/kept", "POST")):
            await stack.enter_async_context(
                following(gateway, f"{path}?token={SECRET}", method, SECRET.encode() if method == "POST" else b"")
            )
        snapshot = await looker.snapshot(lambda snapshot: len(snapshot["streams"]) == 3)
        assert "…-2" in only(snapshot, "streams", mode="resumable")["last_id"]  # who knows a stream's whole id may come for it
        plot.more.go()
        snapshot = await looker.snapshot(lambda snapshot: len(snapshot["ended"]) >= 2)
        said = json.dumps(snapshot)
        assert "/direct" in said
        assert SECRET not in said
        assert "?" not in said


class Counted:
    """A look that counts how often it was taken."""

    def __init__(self, size: int = 0) -> None:
        self.count = 0
        self._size = size

    async def __call__(self) -> dict[str, Any]:
        self.count += 1
        figures = dict.fromkeys(("in", "out", "latency_p50", "latency_p99", "loop_lag"), 0.5)
        return {"at": float(self.count), "filler": "x" * self._size, **figures}


@asynccontextmanager
async def dashboard(look: Counted) -> AsyncIterator[tuple[Admin, web.AppRunner]]:
    """Start a dashboard alone."""
    app = web.Application()
    add_events(app, Dashboard(look, Services({})))
    runner = web.AppRunner(app, shutdown_timeout=GUARD_SECONDS)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with aiohttp.ClientSession() as session:
            port = runner.addresses[0][1]
            yield Admin(f"http://127.0.0.1:{port}", port, session), runner
    finally:
        await runner.cleanup()


def making() -> list[str]:
    return [str(task.get_coro()) for task in asyncio.all_tasks() if "Dashboard._make" in str(task.get_coro())]


async def test_one_snapshot_serves_all_pages_and_none_is_taken_without_a_page() -> None:
    look = Counted()
    async with dashboard(look) as (admin, _):
        assert look.count == 0
        async with admin.look() as one, admin.look() as other:
            assert len(making()) == 1
            seen = [(await one.snapshot())["at"] for _ in range(5)]
            assert seen == sorted(set(seen))
            both = (await other.snapshot(lambda snapshot: snapshot["at"] >= seen[-1]))["at"]
            assert both <= look.count
        async with asyncio.timeout(GUARD_SECONDS):
            while making():
                await asyncio.sleep(0.01)
        count = look.count
        async with admin.look() as again:
            assert (await again.snapshot())["at"] == count + 1


async def test_later_page_gets_the_data_of_the_charts_and_the_newest_snapshot_at_once() -> None:
    async with dashboard(Counted()) as (admin, _), admin.look() as first:
        await first.snapshot(lambda snapshot: snapshot["at"] >= 3)
        async with admin.look() as later:
            _, series = await later.event("series")
            assert series["names"] == ["at", "in", "out", "latency_p50", "latency_p99", "loop_lag"]
            assert series["points"][:2] == [[1, 0.5, 0.5, 0.5, 0.5, 0.5], [2, 0.5, 0.5, 0.5, 0.5, 0.5]]
            assert (await later.snapshot())["at"] >= series["points"][-1][0]


async def test_page_that_does_not_read_delays_no_other_and_takes_bounded_memory() -> None:
    size = 1_000_000
    async with dashboard(Counted(size)) as (admin, runner), Downstream(admin.port, receive_buffer=4096) as stuck, admin.look() as looker:
        await stuck.ask("/dashboard/events")
        await looker.snapshot(lambda snapshot: snapshot["at"] >= 25)
        assert runner.server is not None
        waiting = [connection.transport.get_write_buffer_size() for connection in runner.server.connections if connection.transport]
        assert len(waiting) == 2
        assert max(waiting) < 2 * size


async def test_page_beyond_the_limit_is_refused() -> None:
    async with dashboard(Counted()) as (admin, _), AsyncExitStack() as stack:
        for _ in range(32):
            await (await stack.enter_async_context(admin.look())).event("series")
        assert (await admin.refusal("/dashboard/events"))[0] == 503


async def test_look_that_fails_ends_the_streams_and_is_reported() -> None:
    class Broken(Counted):
        async def __call__(self) -> dict[str, Any]:
            raise RuntimeError("broken")

    reported: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["message"]))
    async with dashboard(Broken()) as (admin, _), admin.look() as looker:
        await looker.ended()
    assert reported == ["making a snapshot failed"]


async def test_shutdown_ends_the_stream_of_an_open_page(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(ScriptedUpstream(Plot()))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        async with admin(routes(upstream), tmp_path) as gateway:
            looker = Looker(await stack.enter_async_context(session.get(gateway.url + "/dashboard/events")))
            await looker.snapshot()
        await looker.ended()  # and was not cut, as it would be if the runner had to cancel it


async def test_first_bytes_have_the_retry_time() -> None:
    async with dashboard(Counted()) as (admin, _), admin.session.get(admin.url + "/dashboard/events") as answer:
        parser = Parser()
        parser.feed(await answer.content.readuntil(b"\n\n"))
        assert parser.reconnection_time == 2000
