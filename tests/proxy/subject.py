"""The proxy under test as a process: the gateway, or the command in `PROXY_UNDER_TEST`."""

import asyncio
import contextlib
import os
import shlex
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.kit.stack import START_SECONDS, environment, free_ports, resident_bytes, route_table
from tests.kit.waiting import GUARD_SECONDS

ROOT = Path(__file__).parents[2]
TEMPLATE = os.environ.get("PROXY_UNDER_TEST", "")
"""A command with `{port}` and `{upstream}`, for instance `env UPSTREAM={upstream} PORT={port} my-proxy`; empty: the gateway."""

Route = Mapping[str, Any]
gateway_command = ["gateway"]
"""The module that starts the gateway, and its arguments; `pytest --documented-aiohttp` sets another one."""


@dataclass(frozen=True)
class Subject:
    """A running proxy."""

    port: int
    process: "subprocess.Popen[bytes]"
    log_file: Path

    def rss(self) -> int:
        """Return the resident memory in bytes, as the kernel counts it."""
        return resident_bytes(self.process.pid)

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    async def stop(self, within: float) -> int:
        """Send SIGTERM and return the exit status. Raises TimeoutExpired when it takes longer than `within` seconds."""
        self.process.terminate()
        return await asyncio.to_thread(self.process.wait, within)


@contextlib.asynccontextmanager
async def running(upstream: str, routes: Sequence[Route], directory: Path, **settings: object) -> AsyncIterator[Subject]:
    """Run the proxy with `routes` (another proxy gets only `upstream`) and `settings`, and stop it at the end.

    The gateway must then exit with 0, and must not have logged a stack trace.
    """
    port, admin_port = free_ports(2)
    log_file = directory / "proxy.log"
    if TEMPLATE:
        command = shlex.split(TEMPLATE.format(port=port, upstream=upstream))
        environ = dict(os.environ)
        ready = f"http://127.0.0.1:{port}/"
    else:
        config = directory / "gateway.toml"
        config.write_text("\n".join(route_table(route) for route in routes))
        command = [sys.executable, "-m", *gateway_command]
        places = {"host": "127.0.0.1", "port": port, "config": config, "admin_host": "127.0.0.1", "admin_port": admin_port}
        environ = environment("gateway", places | settings)
        ready = f"http://127.0.0.1:{admin_port}/readyz"
    with log_file.open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=log, stderr=subprocess.STDOUT)
    subject = Subject(port, process, log_file)
    try:
        await _until_ready(subject, ready)
        yield subject
        if process.poll() is None:
            status = await subject.stop(GUARD_SECONDS)
            assert TEMPLATE or status == 0, f"exit status is {status}; log ends:\n{subject.log()[-3000:]}"
        assert TEMPLATE or "Traceback" not in subject.log(), f"stack trace in the log:\n{_around_traceback(subject.log())}"
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


async def _until_ready(subject: Subject, url: str) -> None:
    try:
        async with asyncio.timeout(START_SECONDS):
            while not await asyncio.to_thread(_answers, url):
                if subject.process.poll() is not None:
                    raise AssertionError(f"the proxy exited with {subject.process.returncode}:\n{subject.log()[-3000:]}")
                await asyncio.sleep(0.05)
    except TimeoutError as error:
        raise AssertionError(f"the proxy is not ready after {START_SECONDS} s:\n{subject.log()[-3000:]}") from error


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except urllib.error.HTTPError as error:
        error.close()
        return bool(TEMPLATE)  # any answer of another proxy is enough
    except OSError:
        return False


def _around_traceback(log: str) -> str:
    at = log.find("Traceback")
    return log[max(0, at - 500) : at + 3000]
