"""The gateway as a process that can be killed and restarted on its port, with routes of mode shared."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from tests.kit.stack import ServiceProcess, free_ports, resident_bytes, route_table

Route = dict[str, Any]


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

    async def stop(self) -> None:
        """Drain it; it must exit with 0."""
        assert await asyncio.to_thread(self.process.stop) == 0

    def memory(self) -> int:
        """Return the resident memory in bytes, as the kernel counts it."""
        return resident_bytes(self.process.pid)

    async def metric(self, name: str, **labels: str) -> float:
        return await asyncio.to_thread(lambda: self.process.metric(name, **labels))


@contextlib.asynccontextmanager
async def running(routes: Sequence[Route], directory: Path, **settings: object) -> AsyncIterator[Gateway]:
    """Run the gateway; at the end it must exit with 0 and have logged no stack trace."""
    port, admin_port = free_ports(2)
    config, output = directory / "gateway.toml", directory / "gateway.log"
    config.write_text("\n".join(route_table(route) for route in routes))
    environ = {"PORT": port, "ADMIN_PORT": admin_port, "CONFIG": config, "DATA_DIR": directory / "data", "DRAIN_SECONDS": 2}
    environ |= {name.upper(): value for name, value in settings.items()}
    gateway = Gateway(
        port, ServiceProcess("gateway", admin_port, {f"GATEWAY_{name}": str(value) for name, value in environ.items()}, output)
    )
    try:
        await gateway.start()
        yield gateway
        if gateway.process.running:
            await gateway.stop()
        log = output.read_text()
        assert "Traceback" not in log, f"stack trace in {output}:\n{log[max(0, log.find('Traceback') - 500) :][:3500]}"
    finally:
        if gateway.process.running:
            gateway.process.kill()
