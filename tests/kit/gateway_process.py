"""Run `python -m gateway` as a process."""

import asyncio
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from gateway.__main__ import main
from tests.kit.stack import START_SECONDS, environment, service_command
from tests.kit.waiting import GUARD_SECONDS


def run(*arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    """Run the gateway until it ends by itself."""
    command, environ = service_command("gateway", *arguments), environment("gateway", settings)
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=START_SECONDS)


def start_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str]:
    """Return exit status and standard error of a start in this process that must fail before anything is served or logged."""
    monkeypatch.setattr(sys, "argv", ["gateway", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    out, err = capsys.readouterr()
    assert out == ""
    return end.value.code, err


class GatewayProcess:
    """A running gateway, and its log, line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.url = ""
        self.admin = ""
        self.log: list[dict[str, Any]] = []
        """Return the lines read so far."""

    @property
    def pid(self) -> int:
        """Process ID of the started process, which is the parent if there are workers."""
        return self._process.pid

    async def log_line(self, event: str, within: float = GUARD_SECONDS) -> dict[str, Any]:
        """Return the next log line about `event`. Every line before it must be JSON."""
        assert self._process.stdout is not None
        async with asyncio.timeout(within):
            async for line in self._process.stdout:
                fact: dict[str, Any] = json.loads(line)
                self.log.append(fact)
                if fact["event"] == event:
                    return fact
        raise AssertionError(f"the log ended without {event!r}")

    async def rest_of_log(self) -> list[dict[str, Any]]:
        assert self._process.stdout is not None
        return [json.loads(line) for line in (await self._process.stdout.read()).splitlines()]

    def terminate(self, number: signal.Signals = signal.SIGTERM) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has ended, and the loop is about to say so
            os.kill(self._process.pid, number)  # `send_signal` asks whether it has ended, and then the loop cannot

    async def exit_status(self) -> int:
        async with asyncio.timeout(GUARD_SECONDS):
            return await self._process.wait()

    async def metrics(self, path: str = "/metrics") -> dict[str, Metric]:
        """Return the metric families of the admin port by name, as Prometheus parses them."""
        async with httpx.AsyncClient(trust_env=False) as http:
            text = (await http.get(f"{self.admin}{path}")).raise_for_status().text
        return {family.name: family for family in text_string_to_metric_families(text)}


def meter(metrics: Mapping[str, Metric], name: str, **labels: str) -> float:
    """Return the sum of the samples called `name` that have `labels`."""
    samples = [sample for family in metrics.values() for sample in family.samples if sample.name == name]
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


@contextlib.asynccontextmanager
async def start_gateway(descriptors: int = 0, *, plain: bool = False, **settings: str) -> AsyncIterator[GatewayProcess]:
    """Run `python -m gateway` on free ports, configured by the environment, until the block ends.

    `descriptors` limits its file descriptors, if not 0.
    """

    def limit_descriptors() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

    process = await asyncio.create_subprocess_exec(
        *service_command("gateway", plain=plain),
        env=environment("gateway", {"PORT": "0", "ADMIN_PORT": "0"} | settings),
        stdout=asyncio.subprocess.PIPE,
        limit=2**20,
        start_new_session=True,  # so that a test can signal its process group, as Ctrl-C does
        preexec_fn=limit_descriptors if descriptors else None,
    )
    gateway = GatewayProcess(process)
    try:
        listening = await gateway.log_line("listening", START_SECONDS)
        gateway.url, gateway.admin = listening["url"], listening["admin"]
        yield gateway
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
