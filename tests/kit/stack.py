"""The three services as processes on ports of their own, for tests of the whole stack."""

import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.kit.fork_server import FORKED
from tests.kit.waiting import GUARD_SECONDS, wait_until

REPOSITORY = Path(__file__).parents[2]
T = TypeVar("T")
DEMO_TEXT = "七夕情人节即将来临,我们为您准备了精美的鲜花和美味的蛋糕"
ALL_TOPICS = "/topics/%3E/events?from=start"
"""The path that the consumer follows by default: every event of the producer's log."""
PREFIXES = ("PRODUCER_", "GATEWAY_", "CONSUMER_")
EXIT_SECONDS = 10
"""The most seconds that the interpreter takes to exit on a busy machine, after a service is done. Together with the default grace time,
10 s, it is well within the 30 s of the compose file."""
START_SECONDS = 180
"""The most seconds until a service has started on an overloaded machine; only a defect reaches it."""
QUICK_START = {
    "PYTHONPATH": str(REPOSITORY / "tests/absent"),
    "PYDANTIC_DISABLE_PLUGINS": "__all__",
    "SSL_CERT_FILE": os.devnull,
}
"""Saves a quarter of the CPU time of a service's start: rich and twisted, which the images do not have; the search of all packages for
plug-ins of pydantic; and this machine's certificates, which aiohttp reads when it is imported."""


CHANGED_AIOHTTP = REPOSITORY / "tests/changed_aiohttp"
"""With this folder in PYTHONPATH the gateway runs as if aiohttp had changed."""


def clean_environment(**variables: str) -> dict[str, str]:
    """Return the environment of this process without any setting of the services, plus `variables`."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIXES)} | variables


def environment(service: str, settings: Mapping[str, object]) -> dict[str, str]:
    """Return the environment of this process with only these settings of a service, without their prefix, and a quick start."""
    return clean_environment(**QUICK_START, **{f"{service}_{name}".upper(): str(value) for name, value in settings.items()})


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process, as the kernel counts it. It must have been started plainly."""
    assert b"fork_server" not in Path(f"/proc/{pid}/cmdline").read_bytes(), "a forked process shares memory: start it with plain=True"
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} has no VmRSS: it is gone")


def route_table(route: Mapping[str, object]) -> str:
    """Return one `[[routes]]` table; JSON's strings, numbers, booleans and arrays are TOML's."""
    tables = {key: value for key, value in route.items() if isinstance(value, dict)}
    lines = ["[[routes]]", *(f"{key} = {json.dumps(value)}" for key, value in route.items() if key not in tables)]
    for key, table in tables.items():
        lines += [f"[routes.{key}]", *(f"{name} = {json.dumps(value)}" for name, value in table.items())]
    return "\n".join([*lines, ""])


PORTS = range(20_000, 32_000)
"""Below the ports that the kernel takes for outgoing connections."""


def _own_ports() -> list[int]:
    """Return this process's share among the processes of `pytest -n`: no other may take a port that was given out and is not used yet."""
    place, count = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"), os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")
    ports = list(PORTS[int(place) :: int(count)])
    random.shuffle(ports)
    return ports


_ports = itertools.cycle(_own_ports())


def free_ports(count: int) -> list[int]:
    """Return ports without a listener. They are reused only after all others, because a service may leave its port for a while."""
    ports: list[int] = []
    with ExitStack() as held:
        for port in itertools.islice(_ports, 1000):
            listener = held.enter_context(closing(socket.socket()))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            ports.append(port)
            if len(ports) == count:
                return ports
    raise AssertionError(f"no {count} free ports")


@contextmanager
def refusing() -> Iterator[str]:
    """Yield the URL of a port that refuses connections; it is held, so that no other process listens there meanwhile."""
    with closing(socket.socket()) as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


def answers(url: str, statuses: Container[int] = (200,)) -> bool:
    """Whether a GET of `url` is answered with one of the statuses."""
    try:
        # loading the certificates to verify by takes 40 ms
        return httpx.get(url, trust_env=False, verify=False, timeout=5).status_code in statuses
    except httpx.TransportError:
        return False


def service_command(name: str, *arguments: str, constants: Mapping[str, object] | None = None, plain: bool = False) -> list[str]:
    """Return the command that runs a service, if need be with other values for its modules' constants, such as the time between retries.

    `plain`: not forked, for tests of its memory, its files in /proc, or its very first moments.
    """
    changed = ["tests.kit.with_constants", name, json.dumps(constants)] if constants else [name]
    return [sys.executable if plain else FORKED, "-m", *changed, *arguments]


class ServiceProcess:
    """One service as a process that can be killed and started again on the same port. Its output is appended to `output`."""

    def __init__(self, name: str, status_port: int, environ: Mapping[str, str], output: Path, command: Sequence[str] | None = None) -> None:
        self.name = name
        self._command = command or service_command(name)
        self.status_url = f"http://127.0.0.1:{status_port}"
        self.output = output
        self._environ = clean_environment(**QUICK_START, **environ)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                cwd=REPOSITORY,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def wait_until_ready(self) -> None:
        wait_until(self._is_ready, f"{self.name} ready; its output: {self.output}", START_SECONDS)

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"{self.name} ended with status {self._process.returncode}: {self.output.read_text()}"
        return answers(self.status_url + "/readyz")

    def kill(self) -> None:
        """Crash it by SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(GUARD_SECONDS)

    def send_signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM, within: float = GUARD_SECONDS) -> int:
        """End it by a signal and return the exit status. Raises TimeoutExpired, and kills it, when that takes longer than `within`."""
        assert self._process is not None
        self._process.send_signal(number)
        try:
            return self._process.wait(within)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        """The process ID of the last start."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def log(self) -> list[dict[str, Any]]:
        """Return the lines of JSON that it has written so far."""
        return [json.loads(line) for line in self.output.read_text().splitlines() if line.startswith("{")]

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of the samples of `name` whose labels include `labels`."""
        text = httpx.get(self.status_url + "/metrics", trust_env=False, verify=False, timeout=GUARD_SECONDS).text
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples if sample.name == name]
        return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


@dataclass(frozen=True)
class Stack:
    """Producer, gateway and consumer, connected as in the compose file."""

    producer: ServiceProcess
    gateway: ServiceProcess
    consumer: ServiceProcess
    url: str
    """The gateway's address for clients."""
    log_dir: Path
    """The consumer's event log."""

    @property
    def services(self) -> tuple[ServiceProcess, ServiceProcess, ServiceProcess]:
        return self.producer, self.gateway, self.consumer


class SentCount:
    """The events that the producer has sent on `route` since this count was created; no other client may read that route meanwhile."""

    def __init__(self, stack: Stack, route: str) -> None:
        self._producer = stack.producer
        self._route = route
        self._before = 0.0
        self._before = self.now()

    def now(self) -> float:
        return self._producer.metric("producer_events_sent_total", route=self._route) - self._before


@contextmanager
def run_stack(directory: Path, source_path: str = ALL_TOPICS, *, plain: bool = False, **variables: str) -> Iterator[Stack]:
    """Run the stack with its files in `directory`; the consumer reads `source_path` from the gateway, `variables` are further settings.

    At the end each service that still runs gets SIGTERM and must exit with status 0.
    """
    producer_port, gateway_port, admin_port, consumer_port = free_ports(4)
    url = f"http://127.0.0.1:{gateway_port}"
    environs = {
        "producer": {"PRODUCER_PORT": str(producer_port), "PRODUCER_LOG_DIR": str(directory / "producer"), "PRODUCER_DEMO": "false"},
        "gateway": {
            "GATEWAY_PORT": str(gateway_port),
            "GATEWAY_ADMIN_PORT": str(admin_port),
            "GATEWAY_UPSTREAM": f"http://127.0.0.1:{producer_port}",
            "GATEWAY_CONFIG": str(REPOSITORY / "gateway/routes.toml"),
            "GATEWAY_DATA_DIR": str(directory / "gateway"),
            "GATEWAY_SERVICES": f"producer=http://127.0.0.1:{producer_port},consumer=http://127.0.0.1:{consumer_port}",
        },
        "consumer": {
            "CONSUMER_PORT": str(consumer_port),
            "CONSUMER_SOURCE_URL": url + source_path,
            "CONSUMER_LOG_DIR": str(directory / "consumer"),
        },
    }
    ports = {"producer": producer_port, "gateway": admin_port, "consumer": consumer_port}
    services = {}
    for name, environ in environs.items():
        own = {key: value for key, value in variables.items() if key.startswith(name.upper() + "_")}
        services[name] = ServiceProcess(name, ports[name], environ | own, directory / f"{name}.output", service_command(name, plain=plain))
    stack = Stack(**services, url=url, log_dir=directory / "consumer")
    try:
        stack.producer.start()
        stack.gateway.start()
        stack.producer.wait_until_ready()
        stack.gateway.wait_until_ready()
        stack.consumer.start()
        stack.consumer.wait_until_ready()
        yield stack
        statuses = {service.name: service.stop() for service in reversed(stack.services) if service.running}
        assert not any(statuses.values()), f"exit statuses {statuses}; output in {directory}"
    finally:
        for service in stack.services:
            if service.running:
                service.kill()
