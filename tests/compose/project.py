"""The stack as a Compose project with its own name and ports."""

import json
import os
import random
import subprocess
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.kit.stack import REPOSITORY, clean_environment, free_ports
from tests.kit.waiting import wait_until

SERVICES = ("producer", "gateway", "consumer")
DEVELOPMENT_KEY = "development-key-change-me"
_KILL = """
import os, signal
for child in open("/proc/1/task/1/children").read().split():
    os.kill(int(child), signal.SIGKILL)
"""


@dataclass(frozen=True)
class Project:
    """A Compose project."""

    name: str
    public_port: int
    admin_port: int
    edge_port: int
    environ: dict[str, str]
    directory: Path = REPOSITORY
    """The folder of its compose file."""

    @property
    def url(self) -> str:
        """The gateway's address for clients."""
        return f"http://127.0.0.1:{self.public_port}"

    def compose(self, *arguments: str, check: bool = True) -> str:
        """Run `docker compose` on the project and return its stdout; the AssertionError of a failure has its output."""
        command = ["docker", "compose", "--project-name", self.name, "--env-file", os.devnull, *arguments]
        done = subprocess.run(command, cwd=self.directory, env=self.environ, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0 or not check, f"{' '.join(arguments)}: status {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def inspect(self, service: str) -> dict[str, Any]:
        """Return the engine's description of the service's container."""
        container = self.compose("ps", "--all", "--quiet", service).strip()
        answer = subprocess.run(["docker", "inspect", container], capture_output=True, check=True, timeout=60)
        [inspected] = json.loads(answer.stdout)
        return dict(inspected)

    def python(self, service: str, code: str, check: bool = True) -> str:
        """Run `code` in the service's container and return its output."""
        return self.compose("exec", "-T", service, "python", "-c", code, check=check)

    def kill(self, service: str) -> None:
        """Crash the service by SIGKILL of its process, and return when the engine has restarted it."""
        before = self.inspect(service)["RestartCount"]
        self.python(service, _KILL, check=False)  # the engine may report this very process as killed
        wait_until(lambda: self.inspect(service)["RestartCount"] > before, f"{service} restarted")
        self.wait_until_healthy(service)

    def restart(self, service: str) -> None:
        """Stop the service, start it again, and return when it is healthy."""
        self.compose("stop", service)
        self.compose("start", service)
        self.wait_until_healthy(service)

    def wait_until_healthy(self, service: str) -> None:
        wait_until(lambda: self.inspect(service)["State"]["Health"]["Status"] == "healthy", f"{service} healthy")

    def logged(self) -> list[dict[str, Any]]:
        """Return the complete lines of the consumer's log, in order, while it is one segment; none while the consumer is down."""
        lines = self.compose("exec", "-T", "consumer", "sh", "-c", "cat /data/*.jsonl", check=False).splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def shown_ids(self) -> set[str]:
        """Return the IDs of the events in `docker compose logs consumer`."""
        lines = map(json.loads, self.compose("logs", "--no-log-prefix", "consumer").splitlines())
        return {line["id"] for line in lines if "data" in line}


@contextmanager
def build_images() -> Iterator[str]:
    """Build the images of the three services and yield the name of the Compose project that has them; remove them at the end."""
    project = _project(f"eventstream-test-{uuid.uuid4().hex[:8]}")
    try:
        project.compose("build", "--quiet")
        yield project.name
    finally:
        _remove_images(project, SERVICES)


@contextmanager
def run_project(images: str, **variables: str) -> Iterator[Project]:
    """Run the project with the images of the project `images` and `variables` as further settings; remove everything at the end.

    The service `edge` is built on the image `<name>-caddy`, which its tests build.
    """
    project = _project(f"{images}-{uuid.uuid4().hex[:4]}", **variables)
    try:
        for service in SERVICES:
            subprocess.run(["docker", "tag", f"{images}-{service}", f"{project.name}-{service}"], check=True, timeout=60)
        project.compose("up", "--detach", "--no-build", "--wait", "--wait-timeout", "120")
        yield project
    finally:
        project.compose("--profile", "edge", "down", "--volumes", "--remove-orphans")
        _remove_images(project, SERVICES)


@contextmanager
def run_example(folder: str, **variables: str) -> Iterator[Project]:
    """Build and run the project of an example with `variables` as settings; remove everything at the end."""
    project = replace(_project(f"eventstream-example-{uuid.uuid4().hex[:8]}", **variables), directory=REPOSITORY / folder)
    try:
        project.compose("up", "--build", "--detach", "--wait", "--wait-timeout", "120")
        yield project
    finally:
        project.compose("down", "--volumes", "--rmi", "local")


def _remove_images(project: Project, services: Iterable[str]) -> None:
    """Remove the project's images; layers that others share stay."""
    images = [f"{project.name}-{service}" for service in services]
    subprocess.run(["docker", "rmi", "--force", *images], check=True, capture_output=True, timeout=60)


def _project(name: str, **variables: str) -> Project:
    public_port, admin_port, edge_port = free_ports(3)
    environ = {"PUBLIC_PORT": str(public_port), "ADMIN_PORT": str(admin_port), "EDGE_HTTPS_PORT": str(edge_port)}
    subnet = f"198.{random.choice((18, 19))}.{random.randrange(250)}.{random.randrange(0, 256, 8)}/29"
    environ |= {"EDGE_HOST": "localhost", "EDGE_SUBNET": subnet, "CADDY_IMAGE": f"{name}-caddy", "HEALTH_INTERVAL": "1s"}
    return Project(name, public_port, admin_port, edge_port, clean_environment(**environ, **variables))
