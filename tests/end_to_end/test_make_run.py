"""`make run`, as a newcomer types it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.install.interpreters import interpreters
from tests.kit.stack import REPOSITORY, START_SECONDS, answers, clean_environment, free_ports
from tests.kit.waiting import wait_until

FILES = ("Makefile", "Procfile", "pyproject.toml", "install", "eventstream", "service", "producer", "gateway", "consumer")


def logged(directory: Path) -> list[dict[str, Any]]:
    """Return the complete lines of the consumer's log."""
    lines = (line for segment in directory.glob("*.jsonl") for line in segment.read_text().splitlines(keepends=True))
    return [json.loads(line) for line in lines if line.endswith("\n")]


def is_ready(make: subprocess.Popen[bytes], port: str) -> bool:
    assert make.poll() is None, f"`make run` ended with status {make.returncode}"
    return answers(f"http://127.0.0.1:{port}/readyz")


def lend_environment(directory: Path) -> None:
    """Make `directory` an environment with everything in the tests' own. `make` may clear it: it holds only links."""
    directory.mkdir()
    for entry in Path(sys.prefix).iterdir():
        (directory / entry.name).symlink_to(entry)
    lock = directory / "requirements.txt"
    lock.unlink(missing_ok=True)
    shutil.copy2(REPOSITORY / "tests/requirements.txt", lock)


@pytest.mark.make
@pytest.mark.timeout(600)
@pytest.mark.parametrize("version", interpreters())
def test_make_run_runs_the_stack_until_interrupted(tmp_path: Path, version: str) -> None:
    for name in FILES:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name)
        else:
            shutil.copy2(source, tmp_path / name)
    (tmp_path / "tests").mkdir()
    shutil.copy2(REPOSITORY / "tests/requirements.txt", tmp_path / "tests")
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        lend_environment(tmp_path / ".venv")
    producer_port, gateway_port, admin_port, consumer_port = map(str, free_ports(4))
    environ = clean_environment(
        PRODUCER_PORT=producer_port,
        GATEWAY_PORT=gateway_port,
        GATEWAY_ADMIN_PORT=admin_port,
        GATEWAY_UPSTREAM=f"http://127.0.0.1:{producer_port}",
        CONSUMER_PORT=consumer_port,
        CONSUMER_RECONNECT_INITIAL_SECONDS="0.2",
    )
    output = tmp_path / "output"
    with output.open("wb") as written:
        command = ["make", "run", f"PYTHON={interpreters()[version]}"]
        make = subprocess.Popen(
            command, cwd=tmp_path, env=environ, stdin=subprocess.DEVNULL, stdout=written, stderr=written, start_new_session=True
        )
    try:
        for port in (producer_port, admin_port, consumer_port):
            wait_until(partial(is_ready, make, port), f"port {port} ready; output: {output}", START_SECONDS)
        answer = httpx.post(f"http://127.0.0.1:{gateway_port}/topics/orders/events", json={"data": "roses"}, trust_env=False)
        published = answer.raise_for_status().json()["id"]
        log_dir = tmp_path / "data/consumer"
        wait_until(lambda: published in {record["id"] for record in logged(log_dir)}, "the published event in the log")
        wait_until(lambda: sum("cpu_percent" in record["data"] for record in logged(log_dir)) > 1, "the load of the machine in the log")
        ids = [record["id"] for record in logged(log_dir)]
        assert ids == [f"{published.partition('-')[0]}-{offset}" for offset in range(1, len(ids) + 1)]
        os.killpg(make.pid, signal.SIGINT)  # as Ctrl-C does
        make.wait(20)
    finally:
        if make.poll() is None:
            os.killpg(make.pid, signal.SIGTERM)
            make.wait(20)
    shown = output.read_text()
    for name in ("producer", "gateway", "consumer"):
        assert f"{name}.1 stopped (rc=0)" in shown
    assert "Traceback" not in shown
