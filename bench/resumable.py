"""Mode resumable: its cost beside mode direct, and the memory of finished streams."""

import asyncio
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from .measure import Measurement, MeasurementError, Workload, free_ports, measure, run_origin, run_process, wait_for_answer
from .process_tree import measuring_cpus, usage
from .servers import Launch, Place, environment, gateway, python
from .tables import number, table, workload_table

KEPT_BYTES = 64 * 1024 * 1024
"""GATEWAY_MAX_KEPT_BYTES while streams are kept."""

_EVENTS, _EVENT_BYTES = 250, 200  # 50 KB
_AT_ONCE = 50
_ASKED_AGAIN = 100
_WARM_UP_SECONDS = 1.0
_SETTLE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Kept:
    """The results of a gateway that kept many streams."""

    streams: int
    stream_bytes: int
    seconds: float
    cpu_ms_per_stream: float
    idle_mb: float
    most_mb: float
    """The largest memory seen."""
    after_mb: float
    asked_again: int
    served_again: int
    """Streams that came whole."""


def resumable(place: Place) -> Launch:
    """Return how to start the gateway in mode resumable."""
    route = f'[[routes]]\npath = "/"\nupstream = "http://127.0.0.1:{place.upstream_port}"\nmode = "resumable"\nmethods = ["GET", "POST"]\n'
    return gateway(place, CONFIG=place.write("routes.toml", route), MAX_KEPT_BYTES=str(KEPT_BYTES))


def report(streams: int, kept: int, seconds: float, repeat: int) -> str:
    """Measure both and return the tables. Raises MeasurementError."""
    workload = Workload(f"resumable: {streams} streams × 20 events/s × 60 bytes, each kept", streams, 60, rate=20)
    launches = {"gateway, direct": gateway, "gateway, resumable": resumable}
    results: dict[str, list[Measurement]] = {name: [] for name in launches}
    with run_origin() as origin_port:
        for turn in range(1, repeat + 1):
            for name, launch in launches.items():
                print(f"resumable {turn}/{repeat}: {name}", file=sys.stderr, flush=True)
                results[name].append(measure("gateway", workload, origin_port, _WARM_UP_SECONDS, seconds, launch))
        print(f"resumable: {kept} streams are kept", file=sys.stderr, flush=True)
        return f"{workload_table(workload, results)}\n\n{_kept_table(_keep(kept, origin_port))}"


def _keep(streams: int, origin_port: int) -> Kept:
    """Let a gateway keep `streams` streams, in sequence on each of `_AT_ONCE` connections."""
    port, spare_port = free_ports(2)
    cpus = measuring_cpus()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        launch = resumable(Place(port, origin_port, spare_port, Path(folder)))
        with run_process([python(), *launch.arguments], environment() | launch.environ, cpus[0] if cpus else None) as running:
            wait_for_answer("gateway", port, running)
            return asyncio.run(_load(streams, port, running.process.pid))


async def _load(streams: int, port: int, pid: int) -> Kept:
    idle = usage(pid)
    most_kb = idle.pss_kb
    found: list[tuple[str, int]] = []
    begun = time.monotonic()

    async def ask() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while len(found) < streams:
            request = f"POST /events?rate=0&count={_EVENTS}&size={_EVENT_BYTES} HTTP/1.1\r\nHost: bench\r\nContent-Length: 2\r\n\r\n{{}}"
            found.append(await _answer(reader, writer, request))
        writer.close()

    asking = asyncio.gather(*(ask() for _ in range(_AT_ONCE)))
    while not asking.done():
        await asyncio.wait((asking,), timeout=0.2)
        most_kb = max(most_kb, usage(pid).pss_kb)
    await asking
    seconds, spent_ns = time.monotonic() - begun, usage(pid).cpu_ns - idle.cpu_ns
    await asyncio.sleep(_SETTLE_SECONDS)  # the newest are being stored
    after_kb = usage(pid).pss_kb
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    again = [(await _answer(reader, writer, _again(id)), (id, size)) for id, size in found[:: max(1, len(found) // _ASKED_AGAIN)]]
    writer.close()
    return Kept(
        streams=len(found),
        stream_bytes=sum(size for _, size in found) // len(found),
        seconds=seconds,
        cpu_ms_per_stream=spent_ns / 1e6 / len(found),
        idle_mb=idle.pss_kb / 1024,
        most_mb=most_kb / 1024,
        after_mb=after_kb / 1024,
        asked_again=len(again),
        served_again=sum(answer == before for answer, before in again),
    )


def _again(id: str) -> str:
    return f"GET /streams/{id} HTTP/1.1\r\nHost: bench\r\n\r\n"


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: str) -> tuple[str, int]:
    """Return id and size of the stream that answers a request. Raises MeasurementError when it is not a stream."""
    writer.write(request.encode())
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        id = head.lower().partition("\r\nstream-id: ")[2].partition("\r\n")[0]
        if not head.startswith("HTTP/1.1 200 ") or not id:
            raise MeasurementError(f"the gateway answered {head.splitlines()[0]!r}")
        size = 0
        while length := int(await reader.readline(), 16):
            await reader.readexactly(length + 2)
            size += length
        await reader.readline()
    except (OSError, asyncio.IncompleteReadError) as error:
        raise MeasurementError(f"the gateway cut the connection: {error}") from error
    return id, size


def _kept_table(kept: Kept) -> str:
    head = [f"{kept.streams} finished streams of {kept.stream_bytes} bytes", "CPU ms/stream", "streams/s", "idle MB", "most MB", "after MB"]
    row = [f"GATEWAY_MAX_KEPT_BYTES = {KEPT_BYTES // 2**20} MiB", number(kept.cpu_ms_per_stream), number(kept.streams / kept.seconds)]
    row += [number(megabytes) for megabytes in (kept.idle_mb, kept.most_mb, kept.after_mb)]
    head.append("served again")
    row.append(f"{kept.served_again} of {kept.asked_again}")
    return f"### resumable: what finished streams leave in memory\n\n{table(head, [row])}"
