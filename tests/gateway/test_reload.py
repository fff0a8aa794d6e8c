"""In what tables of routes differ, which routes share streams, and how workers are told."""

import asyncio
import socket
from dataclasses import FrozenInstanceError
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.observe.timeline import Timeline
from gateway.policy.route_table import RouteChanges, RouteError, Routes, RouteTable, routes_of
from gateway.policy.settings import Settings
from gateway.server.reload import Reload, ReloadFailed
from gateway.server.workers.commands import Commands, tables_of
from gateway.server.workers.pool import WorkerPool
from gateway.server.workers.worker import Channel, CommandHandler, _handle_messages

HOST = "http://127.0.0.1:9"


def table(*routes: dict[str, Any]) -> RouteTable:
    return routes_of({"upstream": HOST} | route for route in routes)


def kind(**keys: Any) -> str:
    return table({"path": "/", "mode": "shared"} | keys).routes[0].stream_kind


def test_changes_are_named_by_path_in_order() -> None:
    old = table({"path": "/b"}, {"path": "/a"}, {"path": "/same", "methods": ["get"]}, {"path": "/changed"})
    new = table({"path": "/z"}, {"path": "/y"}, {"path": "/same", "methods": ["GET"]}, {"path": "/changed", "mode": "shared"})
    assert RouteChanges.between(old, new) == RouteChanges(("/y", "/z"), ("/a", "/b"), ("/changed",))
    assert RouteChanges.between(old, old) == RouteChanges()


def test_new_table_finds_its_routes_and_reuses_those_that_are_equal() -> None:
    old = table({"path": "/"}, {"path": "/a"}, {"path": "/a/b"})
    kept = old.find("/a")
    new = table({"path": "/a"}, {"path": "/a/c"}, {"path": "/", "methods": ["GET"]}).reuse(old)
    assert [route.path for route in new.routes] == ["/a/c", "/a", "/"], "the longest prefix is still first"
    assert new.find("/a/b") is kept
    found = new.find("/")
    assert found is not None
    assert found.methods == ("GET",)
    assert [route.path for route in old.routes] == ["/a/b", "/a", "/"]


def test_table_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        table({"path": "/"}).routes = ()  # type: ignore[misc]


def test_route_that_is_gone_has_defaults_and_no_upstream() -> None:
    routes = Routes(table({"path": "/a", "retain_seconds": 1, "mode": "resumable"}))
    assert routes.route_of("/a") is routes.current.by_path["/a"]
    gone = routes.route_of("/gone")
    assert (gone.path, gone.mode, gone.upstream, gone.retain_seconds) == ("/gone", "resumable", "", 300)


@pytest.mark.parametrize(
    "keys",
    [
        {"path": "/other"},
        {"upstream": "http://127.0.0.1:10"},
        {"share_by": ["authorization"]},
        {"public": True},
        {"request_headers": {"Authorization": "Bearer x"}},
        {"response_headers": {"X": "y"}},
        {"history_max_blocks": 1},
        {"ids": "assign"},
        {"heartbeat_seconds": 1},
    ],
)
def test_route_with_another_stream_is_of_another_kind(keys: dict[str, Any]) -> None:
    assert kind(**keys) != kind()


def test_kind_does_not_reveal_the_fields_of_a_route() -> None:
    assert "secret" not in kind(request_headers={"Authorization": "Bearer secret"})


def test_methods_do_not_make_another_stream() -> None:
    assert kind(methods=["GET"]) == kind()


async def test_gateway_without_a_file_says_that_there_is_none_to_read_again() -> None:
    reload = Reload(Settings(), replace=lambda routes: pytest.fail(f"{routes} were put in place"), timeline=Timeline())
    with pytest.raises(RouteError, match="GATEWAY_CONFIG is not set, so there is no file to reload"):
        await reload.reload()


class ScriptedChannel:
    """Notes what a worker is told."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    def send(self, **message: Any) -> None:
        self.told.put_nowait(message)


def workers(*states: str) -> Any:
    """Workers in these states, as their parent sees them."""
    crew = [SimpleNamespace(number=number, state=state, channel=ScriptedChannel()) for number, state in enumerate(states)]
    return SimpleNamespace(workers=crew, commands=Commands(b"key", table({"path": "/old"})))


def paths(crew: Any) -> list[str]:
    """Return the routes with which a new worker begins."""
    return [route["path"] for route in crew.commands.plan["routes"]]


async def answer(crew: Any, number: int, error: str = "") -> dict[str, Any]:
    """Return the next command to a worker, once it has reported that it is done."""
    message: dict[str, Any] = await crew.workers[number].channel.told.get()
    crew.commands.note_result(crew.workers[number], {"done": message["command"], "error": error})
    return message


async def test_routes_are_put_in_place_when_all_have_prepared_them() -> None:
    crew = workers("ready", "ready")
    new = table({"path": "/new"})
    replacing = asyncio.create_task(crew.commands.replace_routes(crew.workers, new, 1))
    assert (await answer(crew, 0))["prepare"] == tables_of(new)
    await asyncio.sleep(0)
    assert crew.workers[0].channel.told.empty()
    assert paths(crew) == ["/old"]
    await answer(crew, 1)
    for number in (0, 1):
        assert (await answer(crew, number))["put"] == tables_of(new)
    assert await replacing == RouteChanges(("/new",), ("/old",), ())
    assert paths(crew) == ["/new"]


async def test_worker_that_cannot_prepare_leaves_all_with_the_old_routes() -> None:
    crew = workers("ready", "ready")
    replacing = asyncio.create_task(crew.commands.replace_routes(crew.workers, table({"path": "/new"}), 1))
    await asyncio.gather(answer(crew, 0), answer(crew, 1, "no room"))
    with pytest.raises(ReloadFailed, match=r"\Aworker 1: no room\Z"):
        await replacing
    assert crew.workers[0].channel.told.empty()
    assert paths(crew) == ["/old"]


async def test_worker_that_does_not_answer_leaves_all_with_the_old_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.server.workers.commands._RESULT_SECONDS", 0.05)
    crew = workers("ready", "ready")
    replacing = asyncio.create_task(crew.commands.replace_routes(crew.workers, table({"path": "/new"}), 0))
    await answer(crew, 0)
    with pytest.raises(ReloadFailed, match=r"\Aworker 1: no answer\Z"):
        await replacing
    crew.commands.note_result(crew.workers[1], {"done": 2, "error": ""})  # too late, and harmless


async def test_worker_that_ends_meanwhile_is_not_waited_for() -> None:
    crew = workers("ready", "ready")
    replacing = asyncio.create_task(crew.commands.replace_routes(crew.workers, table({"path": "/new"}), 1))
    await answer(crew, 0)
    crew.commands.note_end(crew.workers[1])
    await answer(crew, 0)
    await crew.workers[1].channel.told.get()
    crew.commands.note_end(crew.workers[1])
    assert (await replacing).added == ("/new",)


async def test_worker_that_starts_is_told_at_once_and_obeys_when_it_serves() -> None:
    crew = workers("starting", "gone")
    crew.workers[1].channel = None
    await crew.commands.replace_routes(crew.workers, table({"path": "/new"}), 1)
    assert [route["path"] for route in (await crew.workers[0].channel.told.get())["put"]] == ["/new"]


async def test_workers_that_drain_are_left_alone() -> None:
    draining: Any = SimpleNamespace(draining=True)
    with pytest.raises(ReloadFailed, match="the gateway is shutting down"):
        await WorkerPool.replace_routes(draining, table({"path": "/new"}))


class Routing:
    """Notes what a worker does with routes, and may be without what they need."""

    def __init__(self) -> None:
        self.done: list[tuple[str, list[str]]] = []
        self.error = ""

    async def prepare(self, routes: RouteTable) -> None:
        self.done.append(("prepare", [route.path for route in routes.routes]))
        if self.error:
            raise OSError(self.error)

    def put(self, routes: RouteTable) -> None:
        self.done.append(("put", [route.path for route in routes.routes]))


async def test_worker_applies_prepared_routes_and_prepares_others() -> None:
    routing, handler = Routing(), CommandHandler()
    a, b = tables_of(table({"path": "/a"})), tables_of(table({"path": "/b"}))
    assert await handler.handle(routing, {"prepare": a}) == ""  # type: ignore[arg-type]
    assert await handler.handle(routing, {"put": a}) == ""  # type: ignore[arg-type]
    assert await handler.handle(routing, {"prepare": b}) == ""  # type: ignore[arg-type]
    assert await handler.handle(routing, {"put": a}) == ""  # type: ignore[arg-type]
    kinds = [("prepare", ["/a"]), ("put", ["/a"]), ("prepare", ["/b"]), ("prepare", ["/a"]), ("put", ["/a"])]
    assert routing.done == kinds


async def test_worker_reports_the_error_and_applies_nothing() -> None:
    routing, handler = Routing(), CommandHandler()
    routing.error = "no room"
    assert await handler.handle(routing, {"put": tables_of(table({"path": "/a"}))}) == "no room"  # type: ignore[arg-type]
    assert "route 1 (/a): key 'upstream' is missing" in await handler.handle(routing, {"prepare": [{"path": "/a"}]})  # type: ignore[arg-type]
    assert [what for what, _ in routing.done] == ["prepare"]


async def test_worker_that_starts_and_cannot_have_the_new_routes_leaves_for_one_that_says_so_at_its_start() -> None:
    ours, theirs = socket.socketpair()
    parent, worker = await Channel.open(ours), await Channel.open(theirs)
    routing, leave = Routing(), asyncio.Event()
    routing.error = "no room"
    opened = asyncio.get_running_loop().create_future()
    handling = asyncio.create_task(_handle_messages(worker, None, opened, leave))  # type: ignore[arg-type]
    parent.send(command=0, put=tables_of(table({"path": "/a"})))
    parent.send(drain=True)
    opened.set_result(SimpleNamespace(routing=routing))
    assert await asyncio.wait_for(handling, 10)
    assert leave.is_set()
    assert await parent.receive() == {"done": 0, "error": "no room"}
    await asyncio.gather(parent.close(), worker.close())
