"""The stack as a Compose project of its own name and ports, and what can be asked of it."""

import json
import os
import random
import subprocess
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.stack import REPOSITORY, clean_environment, free_ports, wait_until

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

    @property
    def url(self) -> str:
        """The gateway's address, where clients go."""
        return f"http://127.0.0.1:{self.public_port}"

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

    def kill(self, service: str) -> None:
        """Ends the service as a crash does, by SIGKILL of its process, and returns when the engine has brought it back."""
        before = self.inspect(service)["RestartCount"]
        self.python(service, _KILL, check=False)  # the engine may report this very process as killed
        wait_until(lambda: self.inspect(service)["RestartCount"] > before, f"{service} restarted")
        self.wait_until_healthy(service)

    def restart(self, service: str) -> None:
        """Stops the service, starts it again, and returns when it is healthy."""
        self.compose("stop", service)
        self.compose("start", service)
        self.wait_until_healthy(service)

    def wait_until_healthy(self, service: str) -> None:
        wait_until(lambda: self.inspect(service)["State"]["Health"]["Status"] == "healthy", f"{service} healthy")

    def logged(self) -> list[dict[str, Any]]:
        """Gives the complete lines of the consumer's log, in order, as long as that is one segment; none while the consumer is down."""
        lines = self.compose("exec", "-T", "consumer", "sh", "-c", "cat /data/*.jsonl", check=False).splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def shown_ids(self) -> set[str]:
        """Gives the IDs of the events that `docker compose logs consumer` shows."""
        lines = map(json.loads, self.compose("logs", "--no-log-prefix", "consumer").splitlines())
        return {line["id"] for line in lines if "data" in line}


@contextmanager
def build_images() -> Iterator[str]:
    """Builds the images of the three services and gives the name of the Compose project that has them; they are gone at the end."""
    project = _project(f"eventstream-test-{uuid.uuid4().hex[:8]}")
    try:
        project.compose("build", "--quiet")
        yield project.name
    finally:
        _remove_images(project, SERVICES)


@contextmanager
def run_project(images: str, **variables: str) -> Iterator[Project]:
    """Runs the project with the images of the project `images` and `variables` as further settings; nothing of it is left at the end.

    The service `edge` is built on the image `<name>-caddy`, by who wants it.
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


def _remove_images(project: Project, services: Iterable[str]) -> None:
    """Removes the images that are the project's; layers that others have too stay."""
    images = [f"{project.name}-{service}" for service in services]
    subprocess.run(["docker", "rmi", "--force", *images], check=True, capture_output=True, timeout=60)


def _project(name: str, **variables: str) -> Project:
    public_port, admin_port, edge_port = free_ports(3)
    environ = {"PUBLIC_PORT": str(public_port), "ADMIN_PORT": str(admin_port), "EDGE_HTTPS_PORT": str(edge_port)}
    subnet = f"198.{random.choice((18, 19))}.{random.randrange(250)}.{random.randrange(0, 256, 8)}/29"
    environ |= {"EDGE_HOST": "localhost", "EDGE_SUBNET": subnet, "CADDY_IMAGE": f"{name}-caddy", "HEALTH_INTERVAL": "1s"}
    return Project(name, public_port, admin_port, edge_port, clean_environment(**environ, **variables))
