"""Several workers on one port: how they share it, what the admin port says of them, and how they start and end."""

import asyncio
import json
import os
import re
import signal
import socket
from pathlib import Path

import httpx
import pytest

from gateway.server.listeners import bind_listeners, close_listeners
from tests.kit.downstream import Downstream, End, connected
from tests.kit.gateway_process import meter, run, start_refused
from tests.kit.stack import EXIT_SECONDS
from tests.kit.upstream import EVENT_STREAM_HEAD, Asked, Script, ScriptedUpstream, Silence, chunk
from tests.kit.waiting import GUARD_SECONDS
from tests.kit.workers import EVENT, children_of, crew, default_script, ended, starting, subscribed, until_ended

DRAIN_SECONDS = 3
RETRY = re.compile(rb"retry: ?(\d+)\n")


async def test_connections_spread_over_workers_and_figures_add_up() -> None:
    async with ScriptedUpstream(default_script) as upstream, crew(upstream, WORKERS="3") as workers:
        async with subscribed(workers.port, 60):
            each = [await workers.meter_of(number, "gateway_open_requests") for number in range(3)]
            assert all(each), "60 connections by hash: a worker without one is a defect"
            assert sum(each) == await workers.meter("gateway_open_requests") == 60
            assert await workers.meter("gateway_workers_ready") == 3
        async with asyncio.timeout(GUARD_SECONDS):
            while await workers.meter("gateway_open_requests"):
                await asyncio.sleep(0.02)
        metrics = await workers.gateway.metrics()
    assert meter(metrics, "gateway_requests_total", route="/", status="200") == 60
    assert meter(metrics, "gateway_streams_ended_total", verdict="left") == 60
    assert meter(metrics, "gateway_stream_bytes_total") == 60 * len(EVENT)
    assert metrics["gateway_streams_ended"].type == "counter"
    assert metrics["gateway_open_requests"].documentation == "Open requests, including event streams."


async def test_admin_surface_of_each_worker_can_be_asked() -> None:
    async with crew() as workers, httpx.AsyncClient(base_url=workers.gateway.admin, trust_env=False) as http:
        assert (await http.get("/livez")).json() == {"status": "alive"}
        assert await workers.readiness() == (200, {"status": "ready"})
        for number in (0, 1):
            assert (await http.get(f"/workers/{number}/readyz")).json() == {"status": "ready"}
            assert (await http.get(f"/workers/{number}/none")).status_code == 404
            assert (await http.post(f"/workers/{number}/readyz")).status_code == 405
        absent = await http.get("/workers/2/readyz")
        assert (absent.status_code, absent.json()["detail"]) == (404, "worker numbers are 0 to 1, got 2")
        for path in ("/", "/metrics", "/workers/0/metrics"):
            assert (await http.get(path, headers={"Host": "rebound.example"})).status_code == 421
        assert (await http.post("/reload", headers={"Origin": "https://evil.example"})).status_code == 403


async def test_limits_hold_for_all_workers_together() -> None:
    settings = {"MAX_STREAMS": "8", "MAX_STREAMS_PER_CLIENT": "6"}
    async with ScriptedUpstream(default_script) as upstream, crew(upstream, **settings) as workers, subscribed(workers.port, 6):
        for _ in range(10):  # whichever worker they come to
            async with Downstream(workers.port) as downstream:
                await downstream.ask("/stream")
                assert (await downstream.answer()).head.status == 429
        async with Downstream(workers.port, source="127.0.0.2") as one, Downstream(workers.port, source="127.0.0.2") as two:
            for downstream in (one, two):
                await downstream.ask("/stream")
                assert (await downstream.answer()).head.status == 200
            for _ in range(10):
                async with Downstream(workers.port, source="127.0.0.3") as downstream:
                    await downstream.ask("/stream")
                    assert (await downstream.answer()).head.status == 503


async def test_each_worker_follows_a_shared_stream_once_and_any_resumes_it_by_the_ids_of_its_upstream(tmp_path: Path) -> None:
    events = [b"id: %d\ndata: %d\n\n" % (number, number) for number in range(1, 6)]

    def script(asked: Asked) -> Script:
        first = int(asked.header("Last-Event-ID") or 0)
        return [EVENT_STREAM_HEAD, chunk(b"".join(events[first:])), Silence()]

    config = tmp_path / "gateway.toml"
    async with ScriptedUpstream(script) as upstream:
        config.write_text(f'[[routes]]\npath = "/"\nupstream = "{upstream.url}"\nmode = "shared"\ninitial = "history"\n')
        async with crew(CONFIG=str(config)) as workers, connected(workers.port, 40) as downstreams:
            for place, downstream in enumerate(downstreams):
                await downstream.ask("/", headers=[("Last-Event-ID", "3")] if place % 2 else [])
                answer = await downstream.answer()
                wanted = b"".join(events[3:] if place % 2 else events)
                assert await answer.receive(len(wanted)) == wanted
            assert await workers.meter("gateway_shared_streams") == 2
            async with asyncio.timeout(GUARD_SECONDS):  # a request that caught up with the stream has a moment more to live
                while sum(not asked.left.is_set() for asked in upstream.requests) != 2:
                    await asyncio.sleep(0.01)


async def test_log_has_one_listening_line_and_says_which_worker_a_line_is_of() -> None:
    async with ScriptedUpstream(default_script) as upstream, crew(upstream) as workers:
        async with subscribed(workers.port, 1):
            [number] = [number for number in (0, 1) if await workers.meter_of(number, "gateway_open_requests")]
        assert (await workers.gateway.log_line("stream closed"))["worker"] == number
        workers.gateway.terminate()
        assert await workers.gateway.exit_status() == 0
        log = [(fact["event"], fact.get("worker")) for fact in await workers.gateway.rest_of_log()]
    assert log[0] == ("draining", None)
    assert sorted(log[1:-1], key=str) == [("draining", 0), ("draining", 1)]
    assert log[-1] == ("stopped", None)


async def test_sigterm_drains_all_workers_in_time() -> None:
    async with ScriptedUpstream(default_script) as upstream, crew(upstream, DRAIN_SECONDS=str(DRAIN_SECONDS)) as workers:
        pids = [*workers.pids().values()]
        async with subscribed(workers.port, 200) as answers, connected(workers.port, 20):
            began = asyncio.get_running_loop().time()
            workers.gateway.terminate()
            bodies = await asyncio.gather(*(answer.to_end() for answer in answers))
            assert await workers.gateway.exit_status() == 0
            assert asyncio.get_running_loop().time() - began < DRAIN_SECONDS + EXIT_SECONDS
        assert {answer.end for answer in answers} <= {End.CUT_SHORT, End.RESET}
        assert all(RETRY.fullmatch(body.removeprefix(EVENT)) for body in bodies), {*bodies}
        assert len({*bodies}) > 20, "clients would come back in one wave"
        assert ended(pids)
        with pytest.raises(ConnectionRefusedError):
            async with Downstream(workers.port):
                pass


async def test_ctrl_c_to_the_process_group_drains_it() -> None:
    async with ScriptedUpstream(default_script) as upstream, crew(upstream) as workers:
        pids = [*workers.pids().values()]
        async with subscribed(workers.port, 20) as answers:
            os.killpg(workers.gateway.pid, signal.SIGINT)
            bodies = await asyncio.gather(*(answer.to_end() for answer in answers))
            assert await workers.gateway.exit_status() == 0
        assert all(RETRY.fullmatch(body.removeprefix(EVENT)) for body in bodies), {*bodies}
        assert ended(pids)
        log = await workers.gateway.rest_of_log()
    assert [fact["event"] for fact in log if fact["level"] != "info"] == []


async def test_sigterm_to_every_process_at_once_drains_it() -> None:
    """As systemd does."""
    async with ScriptedUpstream(default_script) as upstream, crew(upstream) as workers, subscribed(workers.port, 20) as answers:
        pids = [*workers.pids().values()]
        for pid in (*pids, workers.gateway.pid):
            os.kill(pid, signal.SIGTERM)
        bodies = await asyncio.gather(*(answer.to_end() for answer in answers))
        assert await workers.gateway.exit_status() == 0
        assert all(RETRY.fullmatch(body.removeprefix(EVENT)) for body in bodies), {*bodies}
        assert ended(pids)


@pytest.mark.parametrize("when", ["starting", "ready", "one short"])
async def test_workers_of_a_parent_that_is_killed_drain_and_end(when: str, tmp_path: Path) -> None:
    with starting(tmp_path) as parent:
        assert parent.stdout is not None
        if when != "starting":
            while '"listening"' not in await asyncio.to_thread(parent.stdout.readline):  # each worker may warn of aiohttp before
                assert parent.poll() is None
        pids = await children_of(parent.pid, 2)
        if when == "one short":
            os.kill(pids[0], signal.SIGKILL)
        parent.kill()
        rest = await asyncio.to_thread(parent.stdout.read)
        await until_ended(pids)
    assert when == "starting" or rest.count("parent is gone, draining") == (2 if when == "ready" else 1)
    assert [*tmp_path.iterdir()] == []


def test_port_in_use_ends_the_start_with_status_1_and_says_which() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        taken = str(holder.getsockname()[1])
        for ports in ({"PORT": taken, "ADMIN_PORT": "0"}, {"PORT": "0", "ADMIN_PORT": taken}):
            answer = run(WORKERS="2", **ports)
            assert answer.returncode == 1
            assert re.fullmatch(rf"gateway: .*{taken}.*address already in use.*\n", answer.stderr), answer.stderr
            assert answer.stdout == ""


def test_port_of_another_gateway_with_workers_is_in_use_too() -> None:
    sets = bind_listeners("127.0.0.1", 0, 2)
    answer = run(WORKERS="2", PORT=str(sets[0][0].getsockname()[1]), ADMIN_PORT="0")
    close_listeners(sets)
    assert answer.returncode == 1
    assert "address already in use" in answer.stderr


def test_routes_that_make_no_sense_end_the_start_with_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text('[[routes]]\npath = "relative"\nupstream = "http://127.0.0.1:1"\n')
    monkeypatch.setenv("GATEWAY_WORKERS", "2")
    monkeypatch.setenv("GATEWAY_CONFIG", str(config))
    status, said = start_refused(monkeypatch, capsys)
    assert status == 2
    assert said.startswith(f"gateway: {config}: route 1 (relative): path = 'relative': must begin with / ")


def test_directory_for_temporary_files_with_too_long_a_path_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / ("long" * 20)
    directory.mkdir()
    with starting(directory) as parent:
        _, err = parent.communicate()
    assert parent.returncode == 1
    assert re.fullmatch(rf"gateway: the path {directory}/\S+ is too long for Unix sockets: set TMPDIR to .*\n", err)
    assert [*directory.iterdir()] == []


async def test_sigterm_while_workers_start_ends_it_with_status_0(tmp_path: Path) -> None:
    with starting(tmp_path) as parent:
        pids = await children_of(parent.pid, 2)
        parent.terminate()
        out, err = await asyncio.to_thread(parent.communicate)
    assert (parent.returncode, err) == (0, "")
    assert [json.loads(line)["event"] for line in out.splitlines()] == ["draining", "stopped"]
    assert ended(pids)
    assert [*tmp_path.iterdir()] == []
