"""The stack in containers, as `docker compose up` runs it: locked down, streaming, and complete through crashes."""

import json
import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.stack import DEMO_TEXT, REPOSITORY, clean_environment, free_ports, wait_until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

SERVICES = ("producer", "gateway", "consumer")
GRACE_SECONDS = 30
REPEAT = 60
LAST = REPEAT * len(DEMO_TEXT)
KILL_SERVICE = """
import os, signal
for child in open("/proc/1/task/1/children").read().split():
    os.kill(int(child), signal.SIGKILL)
"""
READ_STATUS = """
import errno, json, pathlib
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
try:
    pathlib.Path("/app/written").touch()
except OSError as error:
    status["write"] = errno.errorcode[error.errno]
print(json.dumps({name: value.strip() for name, value in status.items()}))
"""


@dataclass(frozen=True)
class Project:
    """A Compose project of its own name and published ports."""

    name: str
    public_port: int
    admin_port: int
    environ: dict[str, str]

    def compose(self, *arguments: str, check: bool = True) -> str:
        """Runs `docker compose` on the project and gives what it wrote to stdout; output of a failure is in the AssertionError."""
        command = ["docker", "compose", "--project-name", self.name, "--env-file", os.devnull, *arguments]
        done = subprocess.run(command, cwd=REPOSITORY, env=self.environ, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0 or not check, f"{' '.join(arguments)}: status {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def inspect(self, service: str) -> dict[str, Any]:
        """Gives what the engine knows of the service's container."""
        container = self.compose("ps", "--all", "--quiet", service).strip()
        answer = subprocess.run(["docker", "inspect", container], capture_output=True, check=True, timeout=60)
        [inspected] = json.loads(answer.stdout)
        return dict(inspected)

    def python(self, service: str, code: str, check: bool = True) -> str:
        """Runs `code` in the service's container and gives what it printed."""
        return self.compose("exec", "-T", service, "python", "-c", code, check=check)

    def logged_ids(self) -> list[str]:
        """Gives the IDs of the events in the consumer's log, in order."""
        lines = self.compose("exec", "-T", "consumer", "sh", "-c", "cat /data/*.jsonl", check=False).splitlines(keepends=True)
        return [json.loads(line)["id"] for line in lines if line.endswith("\n")]

    def shown_ids(self) -> set[str]:
        """Gives the IDs of the events that `docker compose logs consumer` shows."""
        lines = map(json.loads, self.compose("logs", "--no-log-prefix", "consumer").splitlines())
        return {line["id"] for line in lines if "data" in line}


@pytest.fixture(scope="module")
def project() -> Iterator[Project]:
    public_port, admin_port = free_ports(2)
    environ = clean_environment(
        PUBLIC_PORT=str(public_port),
        ADMIN_PORT=str(admin_port),
        PRODUCER_RETRY_MS="200",
        CONSUMER_SOURCE_URL=f"http://gateway:8080/?ids=true&interval_ms=20&repeat={REPEAT}",
    )
    project = Project(f"eventstream-test-{uuid.uuid4().hex[:8]}", public_port, admin_port, environ)
    try:
        project.compose("build", "--quiet")
        project.compose("up", "--detach", "--wait", "--wait-timeout", "120")
        yield project
    finally:
        project.compose("down", "--volumes", "--rmi", "local", "--remove-orphans")


def test_compose_logs_show_each_event(project: Project) -> None:
    wait_until(lambda: len(project.logged_ids()) > 50, "events in the log")
    logged = set(project.logged_ids())
    wait_until(lambda: logged <= project.shown_ids(), "each of them in the output")


@pytest.mark.parametrize("service", SERVICES)
def test_service_that_is_killed_under_load_comes_back_by_itself(project: Project, service: str) -> None:
    before = len(project.logged_ids())
    assert before < LAST, "the load is over before the last kill"
    project.python(service, KILL_SERVICE, check=False)  # the engine may report this very process as killed
    wait_until(lambda: project.inspect(service)["RestartCount"] == 1, f"{service} restarted")
    wait_until(lambda: project.inspect(service)["State"]["Health"]["Status"] == "healthy", f"{service} healthy")
    wait_until(lambda: len(project.logged_ids()) > before, f"events in the log after {service} was killed")


def test_log_is_complete_and_verifies_clean_after_the_kills(project: Project) -> None:
    wait_until(lambda: str(LAST) in project.logged_ids(), "the last event in the log", 120)
    assert project.logged_ids() == [str(number) for number in range(1, LAST + 1)]
    project.compose("run", "--rm", "--no-deps", "-T", "consumer", "python", "-m", "consumer", "verify", "/data")


def test_demo_sentence_streams_through_the_published_port(project: Project) -> None:
    with httpx.stream("GET", f"http://127.0.0.1:{project.public_port}/", trust_env=False) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        lines = [(time.monotonic(), line) for line in response.iter_lines() if line.startswith("data: ")]
    assert "".join(line.removeprefix("data: ") for _, line in lines) == DEMO_TEXT
    assert lines[-1][0] - lines[0][0] > 0.1 * len(DEMO_TEXT) / 2, "the events came all at once"


def test_only_the_gateway_is_published(project: Project) -> None:
    published = {
        (service, inner, outer["HostPort"], outer["HostIp"])
        for service in SERVICES
        for inner, outers in project.inspect(service)["NetworkSettings"]["Ports"].items()
        for outer in outers or ()
    }
    public = {("gateway", "8080/tcp", str(project.public_port), address) for address in ("0.0.0.0", "::")}
    admin = ("gateway", "8081/tcp", str(project.admin_port), "127.0.0.1")
    assert admin in published
    assert published - public == {admin}
    assert published & public
    assert httpx.get(f"http://127.0.0.1:{project.admin_port}/readyz", trust_env=False).status_code == 200


def test_default_ports_are_8080_for_all_and_8081_for_this_machine() -> None:
    command = ["docker", "compose", "--env-file", os.devnull, "config", "--format", "json"]
    environ = {name: value for name, value in clean_environment().items() if name not in ("PUBLIC_PORT", "ADMIN_PORT", "PYTHON_IMAGE")}
    done = subprocess.run(command, cwd=REPOSITORY, env=environ, capture_output=True, check=True, timeout=60)
    services = json.loads(done.stdout)["services"]
    ports = [
        (name, port.get("host_ip"), port["published"], port["target"])
        for name, service in services.items()
        for port in service.get("ports", ())
    ]
    assert ports == [("gateway", None, "8080", 8080), ("gateway", "127.0.0.1", "8081", 8081)]
    assert {service["build"]["args"]["PYTHON_IMAGE"] for service in services.values()} == {"python:3.13-slim"}


@pytest.mark.parametrize("service", SERVICES)
def test_container_has_no_rights_to_spare(project: Project, service: str) -> None:
    status = json.loads(project.python(service, READ_STATUS))
    assert set(status["Uid"].split()) == {"10001"}
    assert set(status["Gid"].split()) == {"10001"}
    for capabilities in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb"):
        assert int(status[capabilities], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert status["write"] == "EROFS"
    assert project.inspect(service)["HostConfig"]["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "3"}


def test_down_ends_every_service_with_status_0_within_the_grace_time(project: Project) -> None:
    with httpx.stream("GET", f"http://127.0.0.1:{project.public_port}/?repeat=1000", trust_env=False) as response:
        next(response.iter_lines())
        begun = time.monotonic()
        project.compose("stop")
        assert time.monotonic() - begun < GRACE_SECONDS
    states = {service: project.inspect(service)["State"] for service in SERVICES}
    assert {service: (state["ExitCode"], state["OOMKilled"]) for service, state in states.items()} == dict.fromkeys(SERVICES, (0, False))
