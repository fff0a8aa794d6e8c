"""The load of the machine: CPU, memory, network."""

import time
from typing import Any

import psutil

UNREADABLE = (OSError, psutil.Error, RuntimeError, ValueError, LookupError)
"""The exceptions of reading where /proc is hidden or differs from Linux, because psutil parses it by hand."""

_LOOPBACK = "lo"


class HostReader:
    """Read the load since the previous reading. All readings belong in one thread."""

    def __init__(self) -> None:
        self._at: float | None = None
        self._received = self._sent = 0

    def __repr__(self) -> str:
        return f"<HostReader {'new' if self._at is None else 'reading'}>"

    def read(self) -> dict[str, Any] | None:
        """Return an object for JSON; None the first time, without a previous reading. Raises one of UNREADABLE."""
        cpu, memory = psutil.cpu_percent(), psutil.virtual_memory()
        interfaces = [counters for name, counters in psutil.net_io_counters(pernic=True).items() if name != _LOOPBACK]
        received, sent = sum(counters.bytes_recv for counters in interfaces), sum(counters.bytes_sent for counters in interfaces)
        at = time.monotonic()
        reading = None
        if self._at is not None:
            seconds = max(at - self._at, 0.001)
            reading = {
                "cpu_percent": cpu,
                "memory_percent": memory.percent,
                "memory_total_bytes": memory.total,
                "network_received_bytes_per_second": max(round((received - self._received) / seconds), 0),  # an interface may disappear
                "network_sent_bytes_per_second": max(round((sent - self._sent) / seconds), 0),
            }
        self._at, self._received, self._sent = at, received, sent
        return reading
