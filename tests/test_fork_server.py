"""A forked service is a process like one that the interpreter has started."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.kit.gateway_process import GatewayProcess, run, start_gateway
from tests.kit.stack import environment, resident_bytes, service_command

COMMAND = service_command("gateway", "check", "no such file")


@pytest.fixture(autouse=True, scope="module")
def server() -> None:
    """Let the next start be forked, whether or not this process has started a gateway before."""
    run("--help")
    run("--help")


def started_by_fork(pid: int) -> bool:
    return b"tests.kit.fork_server" in Path(f"/proc/{pid}/cmdline").read_bytes()


async def test_it_is_a_child_of_the_test_with_its_own_session_and_no_files_but_its_own() -> None:
    async with start_gateway(plain=True) as plain, start_gateway() as forked:
        assert (started_by_fork(plain.pid), started_by_fork(forked.pid)) == (False, True)
        assert psutil.Process(forked.pid).ppid() == os.getpid()
        assert os.getsid(forked.pid) == forked.pid

        def kinds(gateway: GatewayProcess) -> list[str]:
            paths = (os.readlink(path) for path in Path(f"/proc/{gateway.pid}/fd").iterdir())
            return sorted(path.partition(":")[0] for path in paths if "urandom" not in path)

        def signals(gateway: GatewayProcess) -> list[str]:
            lines = Path(f"/proc/{gateway.pid}/status").read_text().splitlines()
            return [line for line in lines if line.startswith(("SigBlk", "SigIgn", "SigCgt", "Threads"))]

        assert kinds(forked) == kinds(plain)
        assert signals(forked) == signals(plain)
        for gateway in (plain, forked):
            gateway.terminate(signal.SIGKILL)
            assert await gateway.exit_status() == -signal.SIGKILL


def test_it_has_its_own_arguments_variables_streams_and_exit_status(tmp_path: Path) -> None:
    plain = subprocess.run([sys.executable, *COMMAND[1:]], env=environment("gateway", {}), capture_output=True, text=True)
    forked = subprocess.run(COMMAND, env=environment("gateway", {}), capture_output=True, text=True)
    assert (forked.returncode, forked.stdout, forked.stderr) == (plain.returncode, plain.stdout, plain.stderr)
    assert "no such file" in forked.stderr
    assert "GATEWAY_PORT" in run(PORT="none").stderr
    assert "GATEWAY_PORT" not in run("check", "no such file").stderr


async def test_variable_that_the_imports_have_read_means_a_plain_start(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AIOHTTP_NO_EXTENSIONS", "PYTHONMALLOC"):
        with monkeypatch.context() as changed:
            changed.setenv(name, "1" if name.startswith("AIO") else "malloc")
            async with start_gateway() as gateway:
                assert not started_by_fork(gateway.pid)
    monkeypatch.setenv("SECRET", "nothing reads it")
    async with start_gateway() as gateway:
        assert started_by_fork(gateway.pid)


async def test_memory_of_a_forked_process_is_not_measured() -> None:
    async with start_gateway() as gateway:
        with pytest.raises(AssertionError, match="plain=True"):
            resident_bytes(gateway.pid)
