"""One measurement: a fresh server, a load on it, and its usage. Everything that is started here is ended here."""

import http.client
import json
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from .process_tree import end, measuring_cpus, pinned, usage
from .servers import REPOSITORY, SERVERS, Launch, Place, environment, program

_START_SECONDS = 20
_LOAD_SECONDS = 90
"""The most seconds that a load may take beyond its warm-up and duration."""


class MeasurementError(Exception):
    """A process did not start or did not finish; the message names it and its last line of output."""


@dataclass(frozen=True, slots=True)
class Workload:
    """The load on a server."""

    title: str
    streams: int
    size: int
    """Bytes of an event."""
    rate: float = 0
    """Events per second and stream; 0: flat out."""
    count: int = 0
    """Events of one response; 0: it does not end. Otherwise requests are counted."""
    cut: int = 0
    """Seed for chunks and writes that end at random bytes; 0: they end with events."""

    @property
    def path(self) -> str:
        """The target that makes the origin send this workload."""
        return f"/events?rate={self.rate:g}&size={self.size}&count={self.count}&cut={self.cut}"


@dataclass(frozen=True, slots=True)
class Measurement:
    """The results of one server in one measurement. The unit is an event, or a request where responses end."""

    units_per_second: float
    cpu_us_per_unit: float
    user_share: float
    """Share of the CPU time, 0 to 1."""
    kb_per_stream: float
    """Memory per stream at the end above that of the idle server."""
    p50_ms: float | None
    p99_ms: float | None
    defects: Counter[str]


def free_ports(count: int) -> list[int]:
    """Return ports without a listener, below those that the kernel gives to outgoing connections."""
    found: list[int] = []
    for port in random.sample(range(20_000, 32_000), 1000):
        with closing(socket.socket()) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if listener.connect_ex(("127.0.0.1", port)) != 0:
                found.append(port)
        if len(found) == count:
            return found
    raise MeasurementError(f"no {count} free ports between 20000 and 32000")


@contextmanager
def run_origin() -> Iterator[int]:
    """Run the origin and yield its port."""
    [port] = free_ports(1)
    cpus = measuring_cpus()
    with run_process([sys.executable, "-m", "bench.origin", "--port", str(port)], environment(), cpus[1] if cpus else None) as process:
        wait_for_answer("origin", port, process)
        yield port


def measure(
    name: str, workload: Workload, origin_port: int, warm_up: float, seconds: float, start: Callable[[Place], Launch] | None = None
) -> Measurement:
    """Start server `name` (by `start` if given) in front of the origin and measure it for `seconds` after `warm_up` seconds.
    Raises MeasurementError."""
    path = program(name)
    if path is None:
        raise MeasurementError(f"{name} is not installed")
    cpus = measuring_cpus()
    port, spare_port = free_ports(2)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        launch = (start or SERVERS[name])(Place(port, origin_port, spare_port, Path(folder)))
        with run_process([path, *launch.arguments], environment() | launch.environ, cpus[0] if cpus else None) as process:
            wait_for_answer(name, port, process)
            idle_pss_kb = usage(process.process.pid).pss_kb
            seen = _load(workload, port, process.process.pid, warm_up, seconds)
    return _evaluate(workload, idle_pss_kb, seen)


@dataclass(frozen=True, slots=True)
class Running:
    """A process and its output."""

    process: subprocess.Popen[bytes]
    output: IO[bytes]

    def last_words(self) -> str:
        """Return the last line of its output."""
        self.output.seek(0)
        lines = self.output.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "nothing"


@contextmanager
def run_process(command: list[str], environ: dict[str, str], cpu: int | None) -> Iterator[Running]:
    """Run `command` on `cpu`; its output goes to a file, because logging is part of a server's work."""
    with tempfile.TemporaryFile() as output:
        with pinned(cpu):
            process = subprocess.Popen(
                command, cwd=REPOSITORY, env=environ, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
        try:
            yield Running(process, output)
        finally:
            end(process)


def wait_for_answer(name: str, port: int, running: Running, path: str = "/events?count=1", *, whole: bool = True) -> None:
    """Return when the server has answered: with `whole` after a complete response, so that it has loaded everything; else after a head."""
    deadline = time.monotonic() + _START_SECONDS
    while True:
        status = running.process.poll()
        if status is not None:
            raise MeasurementError(f"{name} ended with status {status} and wrote last: {running.last_words()}")
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
            try:
                connection.request("GET", path, headers={"Accept": "text/event-stream"})
                response = connection.getresponse()
                if response.status == 200 and (not whole or response.read()):
                    return
            except (OSError, http.client.HTTPException):  # it does not listen yet
                pass
        if time.monotonic() > deadline:
            raise MeasurementError(f"{name} did not answer within {_START_SECONDS} s and wrote last: {running.last_words()}")
        time.sleep(0.05)


def _load(workload: Workload, port: int, server_pid: int, warm_up: float, seconds: float) -> dict[str, Any]:
    options: dict[str, object] = {
        "port": port,
        "path": workload.path,
        "streams": workload.streams,
        "size": workload.size,
        "count": workload.count,
        "warm-up": warm_up,
        "seconds": seconds,
        "server-pid": server_pid,
    }
    return run_load("bench.load", options, _LOAD_SECONDS + warm_up + seconds)


def run_load(module: str, options: dict[str, object], most_seconds: float) -> dict[str, Any]:
    """Run a load with these options, beside the server's CPU, and return its output. Raises MeasurementError."""
    command = [sys.executable, "-m", module, *(f"--{name}={value}" for name, value in options.items())]
    cpus = measuring_cpus()
    try:
        with pinned(cpus[1] if cpus else None):
            done = subprocess.run(command, cwd=REPOSITORY, env=environment(), capture_output=True, timeout=most_seconds)
    except subprocess.TimeoutExpired as error:
        raise MeasurementError(f"the load did not finish within {error.timeout:g} s") from error
    if done.returncode != 0:
        raise MeasurementError(f"the load ended with status {done.returncode}: {done.stderr.decode(errors='replace').strip()[-300:]}")
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


def _evaluate(workload: Workload, idle_pss_kb: int, seen: dict[str, Any]) -> Measurement:
    before, after = seen["before"], seen["after"]
    counted = "requests" if workload.count else "events"
    units = after[counted] - before[counted]
    spent = {name: after["server"][name] - before["server"][name] for name in ("cpu_ns", "user_ticks", "all_ticks")}
    return Measurement(
        units_per_second=units / (after["at"] - before["at"]),
        cpu_us_per_unit=spent["cpu_ns"] / 1000 / units if units else float("inf"),
        user_share=spent["user_ticks"] / max(spent["all_ticks"], 1),
        kb_per_stream=(after["server"]["pss_kb"] - idle_pss_kb) / workload.streams,
        p50_ms=seen["latency_ms"].get("p50"),
        p99_ms=seen["latency_ms"].get("p99"),
        defects=Counter(seen["defects"]),
    )
