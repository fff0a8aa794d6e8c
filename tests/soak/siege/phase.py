"""What is measured of the gateway and of ordinary clients while a phase of the test lasts."""

import asyncio
import os
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from tests.kit.stack import ServiceProcess
from tests.soak.siege.latencies import Latencies
from tests.soak.siege.ordinary import Ordinary

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")


@dataclass
class Phase:
    """Memory and descriptors are sampled once a second; ordinary clients measure all the time."""

    latencies: Latencies = field(default_factory=Latencies)
    mib: list[float] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    cpu_seconds: float = 0.0
    seconds: float = 0.0

    async def go_on(self, gateway: ServiceProcess, ordinary: Ordinary, http: aiohttp.ClientSession, seconds: float) -> None:
        """Last for `seconds`, in which the gateway's metrics can be had."""
        ordinary.latencies = self.latencies
        process = Path(f"/proc/{gateway.pid}")
        begun, cpu = time.monotonic(), _cpu_seconds(process)
        while (now := time.monotonic()) < begun + seconds:
            self.mib.append(int((process / "statm").read_text().split()[1]) * _PAGE_BYTES / 2**20)
            self.descriptors.append(len(os.listdir(process / "fd")))
            async with http.get(f"{gateway.status_url}/metrics") as answer:
                assert answer.status == 200
                assert "gateway_open_requests" in await answer.text()
            await asyncio.sleep(min(1.0, max(0.0, begun + seconds - now)))
        self.cpu_seconds += _cpu_seconds(process) - cpu
        self.seconds += time.monotonic() - begun

    def __str__(self) -> str:
        mib, descriptors = (f"{min(each):.0f} to {max(each):.0f}, {each[-1]:.0f} at the end" for each in (self.mib, self.descriptors))
        return f"{self.seconds:.0f} s; {mib} MiB; {descriptors} descriptors; {self.cpu_seconds / self.seconds:.0%} of a core"


def growth(samples: list[float] | list[int]) -> float:
    """Return how many times the second third's median the last third has."""
    third = len(samples) // 3
    return statistics.median(samples[2 * third :]) / statistics.median(samples[third : 2 * third])


def _cpu_seconds(process: Path) -> float:
    user, system = (process / "stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) * _TICK_SECONDS
