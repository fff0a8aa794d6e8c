"""`make run`, as a newcomer types it."""

import json
import os
import shutil
import signal
import subprocess
from functools import partial
from pathlib import Path

import pytest

from tests.stack import DEMO_TEXT, REPOSITORY, answers, clean_environment, free_ports, wait_until

FILES = ("Makefile", "Procfile", "pyproject.toml", "eventstream", "service", "producer", "gateway", "consumer")


def logged_text(directory: Path) -> str:
    lines = [json.loads(line) for segment in directory.glob("*.jsonl") for line in segment.read_text().splitlines()]
    return "".join(line["data"] for line in lines)


def is_ready(make: subprocess.Popen[bytes], port: str) -> bool:
    assert make.poll() is None, f"`make run` ended with status {make.returncode}"
    return answers(f"http://127.0.0.1:{port}/readyz")


@pytest.mark.make
@pytest.mark.timeout(300)
def test_make_run_runs_the_stack_until_interrupted(tmp_path: Path) -> None:
    for name in FILES:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name)
        else:
            shutil.copy2(source, tmp_path / name)
    (tmp_path / "tests").mkdir()
    shutil.copy2(REPOSITORY / "tests/requirements.txt", tmp_path / "tests")
    (tmp_path / ".venv").symlink_to(REPOSITORY / ".venv")
    producer_port, gateway_port, admin_port, consumer_port = map(str, free_ports(4))
    environ = clean_environment(
        PRODUCER_PORT=producer_port,
        PRODUCER_INTERVAL_MS="20",
        GATEWAY_PORT=gateway_port,
        GATEWAY_ADMIN_PORT=admin_port,
        GATEWAY_UPSTREAM=f"http://127.0.0.1:{producer_port}",
        CONSUMER_PORT=consumer_port,
        CONSUMER_SOURCE_URL=f"http://127.0.0.1:{gateway_port}/",
        CONSUMER_RECONNECT_INITIAL_SECONDS="0.2",
    )
    output = tmp_path / "output"
    with output.open("wb") as written:
        make = subprocess.Popen(
            ["make", "run"], cwd=tmp_path, env=environ, stdin=subprocess.DEVNULL, stdout=written, stderr=written, start_new_session=True
        )
    try:
        for port in (producer_port, admin_port, consumer_port):
            wait_until(partial(is_ready, make, port), f"port {port} ready; output: {output}")
        wait_until(lambda: logged_text(tmp_path / "data/consumer").startswith(DEMO_TEXT), "the demo sentence in the log")
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
