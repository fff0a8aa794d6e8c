"""Test SIGHUP, and the check of a routes file before a start."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import aiohttp
import httpx
import pytest

from tests.kit.dashboard import Admin
from tests.kit.gateway_process import START_SECONDS, GatewayProcess, start_gateway, start_refused
from tests.kit.reloading import resumable, route
from tests.kit.stack import environment
from tests.kit.upstream import EVENT_STREAM_HEAD, Asked, Script, ScriptedUpstream, Silence, chunk
from tests.kit.workers import Crew, subscribed

NOWHERE = "http://127.0.0.1:9"


def plain(asked: Asked) -> Script:
    """Return the script: `/stream` is an event and then silence, other paths return the upstream's name."""
    if asked.target.startswith("/stream"):
        return [EVENT_STREAM_HEAD, chunk(b"data: 1\n\n"), Silence()]
    return [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"]


async def status(port: int, target: str) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    line = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return int(line.split()[1])


async def test_sighup_reloads_and_logs_the_result_and_is_harmless_during_start_and_end(tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text(route("/", NOWHERE))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gateway",
        env=environment("gateway", {"PORT": "0", "ADMIN_PORT": "0", "CONFIG": str(config)}),
        stdout=asyncio.subprocess.PIPE,
    )
    gateway = GatewayProcess(process)
    try:
        async with asyncio.timeout(START_SECONDS):
            while not signals(process.pid, "SigBlk") & 1 << signal.SIGHUP - 1:
                await asyncio.sleep(0.001)  # the interpreter itself is still starting
        gateway.terminate(signal.SIGHUP)
        fact = await gateway.log_line("routes reloaded", START_SECONDS)  # once the gateway serves
        assert (fact["added"], fact["removed"], fact["changed"]) == ([], [], [])
        config.write_text(route("/new", NOWHERE))
        gateway.terminate(signal.SIGHUP)
        fact = await gateway.log_line("routes reloaded")
        assert (fact["level"], fact["added"], fact["removed"], fact["changed"]) == ("info", ["/new"], ["/"], [])
        config.write_text("nonsense")
        gateway.terminate(signal.SIGHUP)
        fact = await gateway.log_line("routes not reloaded; the old ones stay in force")
        assert fact["level"] == "error"
        assert fact["reason"].startswith(f"{config}: ")
        gateway.terminate()
        while process.returncode is None:
            gateway.terminate(signal.SIGHUP)
            await asyncio.sleep(0.002)
        assert process.returncode == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def signals(pid: int, field: str) -> int:
    """Return a set of signals of a process from the kernel."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1], 16)
    raise AssertionError(f"no {field}")


async def test_all_workers_reload_or_none_and_a_later_worker_has_the_new_routes(tmp_path: Path) -> None:
    config, data = tmp_path / "gateway.toml", tmp_path / "data"
    data.mkdir()
    (data / "worker-1").write_text("a file in the way")
    async with ScriptedUpstream(plain) as upstream:
        config.write_text(route("/stream", upstream.url))
        async with start_gateway(WORKERS="2", CONFIG=str(config), DATA_DIR=str(data), DRAIN_SECONDS="1") as gateway:
            crew = Crew(gateway)
            async with subscribed(crew.port, 4) as answers:
                config.write_text(route("/new", upstream.url) + resumable("/ask", upstream.url))
                gateway.terminate(signal.SIGHUP)
                fact = await gateway.log_line("routes not reloaded; the old ones stay in force")
                assert fact["reason"].startswith(f"worker 1: {data / 'worker-1'}: streams cannot be kept there")
                assert {await status(crew.port, "/new") for _ in range(12)} == {404}
                (data / "worker-1").unlink()
                gateway.terminate(signal.SIGHUP)
                fact = await gateway.log_line("routes reloaded")
                assert (fact["added"], fact["removed"]) == (["/ask", "/new"], ["/stream"])
                assert {await status(crew.port, "/new") for _ in range(12)} == {200}
                assert {await status(crew.port, "/stream") for _ in range(12)} == {404}
                assert (data / "worker-1").is_dir(), "each has opened its store"
                assert [answer.end for answer in answers] == [None] * 4
            async with httpx.AsyncClient(trust_env=False, base_url=gateway.admin) as http:
                assert (await http.post("/reload")).json() == {"added": [], "removed": [], "changed": []}
                assert (await http.post("/workers/0/reload")).status_code == 404, "that is the parent's business"
            async with aiohttp.ClientSession() as session, Admin(gateway.admin, crew.port, session).look() as looker:
                marks = (await looker.snapshot())["marks"]
                assert [mark["kind"] for mark in marks] == ["not-reloaded", "reloaded", "reloaded"]
                assert marks[1]["detail"] == "added /ask, /new; removed /stream"
            for number, pid in crew.pids().items():
                os.kill(pid, signal.SIGHUP)
                assert (await gateway.log_line("a worker ignores SIGHUP; send it to the parent"))["worker"] == number
            killed = crew.kill(0)
            await gateway.log_line("worker ended")
            await crew.until_ready()
            assert crew.pids()[0] != killed
            assert {await status(crew.port, "/new") for _ in range(12)} == {200}
            metrics = await gateway.metrics()
            assert {(each.labels["result"], each.value) for each in metrics["gateway_reloads"].samples} == {("done", 2), ("refused", 1)}


def check(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str]:
    return start_refused(monkeypatch, capsys, "check", *arguments)


def test_check_prints_the_error_of_a_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text(route("relative", NOWHERE))
    refused = check(monkeypatch, capsys, str(config))
    assert refused[0] == 2
    monkeypatch.setenv("GATEWAY_CONFIG", str(config))
    assert check(monkeypatch, capsys) == refused == start_refused(monkeypatch, capsys)
    monkeypatch.setenv("GATEWAY_PRT", "1")
    assert check(monkeypatch, capsys, "/dev/null") == (2, "gateway: GATEWAY_PRT is not a setting; the nearest is GATEWAY_PORT\n")


def test_check_of_valid_routes_lists_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from gateway.server.command_line import check

    config = tmp_path / "gateway.toml"
    config.write_text(route("/b", NOWHERE) + resumable("/a", NOWHERE))
    assert check([str(config)]) == 0
    assert capsys.readouterr().out == f"/a\tresumable\t{NOWHERE}\n/b\tdirect\t{NOWHERE}\n"
    assert [*tmp_path.iterdir()] == [config], "nothing was opened"
