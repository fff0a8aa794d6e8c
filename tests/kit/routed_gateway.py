"""The gateway as a process that can be killed and restarted on its port, with a table of routes; or the proxy in `PROXY_UNDER_TEST`."""

import asyncio
import contextlib
import os
import shlex
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.kit.stack import ServiceProcess, answers, free_ports, resident_bytes, route_table, service_command
from tests.kit.waiting import GUARD_SECONDS

TEMPLATE = os.environ.get("PROXY_UNDER_TEST", "")
"""A command with `{port}` and `{upstream}`, for instance `env UPSTREAM={upstream} PORT={port} my-proxy`; empty: the gateway."""

Route = Mapping[str, Any]


def shared(path: str, upstream: str, **settings: object) -> Route:
    """Return a route of mode shared without heartbeats."""
    return {"path": path, "upstream": upstream, "mode": "shared", "heartbeat_seconds": 0} | settings


class Gateway:
    """A running gateway."""

    def __init__(self, port: int, process: ServiceProcess) -> None:
        self.port = port
        self.process = process

    async def start(self) -> None:
        """Start it, and return when it is ready."""
        await asyncio.to_thread(self.process.start)
        await asyncio.to_thread(self.process.wait_until_ready)

    async def stop(self, within: float = GUARD_SECONDS) -> None:
        """Drain it; it must exit with 0. Raises TimeoutExpired when it takes longer than `within` seconds."""
        status = await asyncio.to_thread(self.process.stop, within=within)
        assert TEMPLATE or status == 0, f"exit status is {status}; log ends:\n{self.text()[-3000:]}"

    def memory(self) -> int:
        """Return the resident memory in bytes, as the kernel counts it. It must have been started plainly."""
        return resident_bytes(self.process.pid)

    def text(self) -> str:
        """Return what it has logged."""
        return self.process.output.read_text(errors="replace")

    async def metric(self, name: str, **labels: str) -> float:
        return await asyncio.to_thread(lambda: self.process.metric(name, **labels))


class _OtherProxy(ServiceProcess):
    """The command in `PROXY_UNDER_TEST`. It is ready when it answers at all."""

    def __init__(self, port: int, upstream: str, output: Path) -> None:
        super().__init__("proxy", port, {}, output, shlex.split(TEMPLATE.format(port=port, upstream=upstream)))
        self._environ = dict(os.environ)

    def _is_ready(self) -> bool:
        return answers(self.status_url, range(1000))


@contextlib.asynccontextmanager
async def running(
    routes: Sequence[Route], directory: Path, *, command: Sequence[str] = (), plain: bool = False, **settings: object
) -> AsyncIterator[Gateway]:
    """Run the gateway; at the end it must exit with 0 and have logged no stack trace. Another proxy gets the first route's upstream."""
    port, admin_port = free_ports(2)
    config, output = directory / "gateway.toml", directory / "gateway.log"
    config.write_text("\n".join(route_table(route) for route in routes))
    environ = {"PORT": port, "ADMIN_PORT": admin_port, "CONFIG": config, "DATA_DIR": directory / "data", "DRAIN_SECONDS": 2}
    environ |= {name.upper(): value for name, value in settings.items()}
    variables = {f"GATEWAY_{name}": str(value) for name, value in environ.items()}
    process = ServiceProcess("gateway", admin_port, variables, output, command or service_command("gateway", plain=plain))
    gateway = Gateway(port, _OtherProxy(port, routes[0]["upstream"], output) if TEMPLATE else process)
    try:
        await gateway.start()
        yield gateway
        if gateway.process.running:
            await gateway.stop()
        log = gateway.text()
        at = log.find("Traceback")
        assert TEMPLATE or at < 0, f"stack trace in {output}:\n{log[max(0, at - 500) : at + 3000]}"
    finally:
        if gateway.process.running:
            gateway.process.kill()
