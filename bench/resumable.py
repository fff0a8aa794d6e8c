"""Mode resumable: its cost beside mode direct, and the memory of finished streams."""

import asyncio
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from .measure import Measurement, MeasurementError, Workload, free_ports, measure, run_origin, run_process, wait_for_answer
from .process_tree import measuring_cpus, usage
from .servers import Launch, Place, environment, gateway, python
from .tables import number, table, workload_table

KEPT_BYTES = 64 * 1024 * 1024
"""GATEWAY_MAX_KEPT_BYTES while streams are kept."""

_EVENTS, _EVENT_BYTES = 250, 200  # 50 KB
_AT_ONCE = 50
_ASKED_AGAIN = 100
_NAMED_STREAMS = 2000
_WARM_UP_SECONDS = 1.0
_SETTLE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Kept:
    """The results of a gateway that kept many streams."""

    streams: int
    stream_bytes: int
    seconds: float
    cpu_ms_per_stream: float
    user_ms_per_stream: float
    idle_mb: float
    most_mb: float
    """The largest memory seen."""
    after_mb: float
    asked_again: int
    served_again: int
    """Streams that came whole."""


def resumable(place: Place, *, named: bool = False) -> Launch:
    """Return how to start the gateway in mode resumable. With `named`, answers have the name that their request's body says."""
    route = f'[[routes]]\npath = "/"\nupstream = "http://127.0.0.1:{place.upstream_port}"\nmode = "resumable"\nmethods = ["GET", "POST"]\n'
    if named:
        route += '[routes.resume]\nname = "body:/id"\npath = "chats/{name}"\n'
    return gateway(place, CONFIG=place.write("routes.toml", route), MAX_KEPT_BYTES=str(KEPT_BYTES))


def report(streams: int, kept: int, seconds: float, repeat: int) -> str:
    """Measure both and return the tables. Raises MeasurementError."""
    workload = Workload(f"resumable: {streams} streams × 20 events/s × 60 bytes, each kept", streams, 60, rate=20)
    launches: dict[str, Callable[[Place], Launch]] = {"gateway, direct": gateway, "gateway, resumable": resumable}
    results: dict[str, list[Measurement]] = {name: [] for name in launches}
    with run_origin() as origin_port:
        for turn in range(1, repeat + 1):
            for name, launch in launches.items():
                print(f"resumable {turn}/{repeat}: {name}", file=sys.stderr, flush=True)
                results[name].append(measure("gateway", workload, origin_port, _WARM_UP_SECONDS, seconds, launch))
        print(f"resumable: {kept} streams are kept", file=sys.stderr, flush=True)
        kept_table = _kept_table(_keep(kept, origin_port))
        return f"{workload_table(workload, results)}\n\n{kept_table}\n\n{_name_table(min(kept, _NAMED_STREAMS), repeat, origin_port)}"


def _name_table(streams: int, repeat: int, origin_port: int) -> str:
    """Compare answers with and without a name, in turns."""
    spent: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(1, repeat + 1):
        print(f"resumable {turn}/{repeat}: names", file=sys.stderr, flush=True)
        for named, figures in spent.items():
            figures.append(_keep(streams, origin_port, named=named).user_ms_per_stream)
    without, with_name = (median(figures) for figures in spent.values())
    head = [f"{streams} answers to {len(_body(0))} bytes of JSON", "user ms/answer", "× without a name"]
    rows = [["without a name", number(without), "1.00"], ["with a name from the body", number(with_name), f"{with_name / without:.3f}"]]
    return f"### resumable: what a name costs, medians of {repeat} runs in turns\n\n{table(head, rows)}"


def _keep(streams: int, origin_port: int, *, named: bool = False) -> Kept:
    """Let a gateway keep `streams` streams, in sequence on each of `_AT_ONCE` connections."""
    port, spare_port = free_ports(2)
    cpus = measuring_cpus()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        launch = resumable(Place(port, origin_port, spare_port, Path(folder)), named=named)
        with run_process([python(), *launch.arguments], environment() | launch.environ, cpus[0] if cpus else None) as running:
            wait_for_answer("gateway", port, running)
            return asyncio.run(_load(streams, port, running.process.pid))


async def _load(streams: int, port: int, pid: int) -> Kept:
    idle = usage(pid)
    most_kb = idle.pss_kb
    found: list[tuple[str, int]] = []
    begun = time.monotonic()

    numbers = itertools.count()

    async def ask() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while len(found) < streams:
            body = _body(next(numbers))
            target = f"/events?rate=0&count={_EVENTS}&size={_EVENT_BYTES}"
            request = f"POST {target} HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(body)}\r\n\r\n{body}"
            found.append(await _answer(reader, writer, request))
        writer.close()

    asking = asyncio.gather(*(ask() for _ in range(_AT_ONCE)))
    while not asking.done():
        await asyncio.wait((asking,), timeout=0.2)
        most_kb = max(most_kb, usage(pid).pss_kb)
    await asking
    seconds, spent = time.monotonic() - begun, usage(pid)
    await asyncio.sleep(_SETTLE_SECONDS)  # the newest are being stored
    after_kb = usage(pid).pss_kb
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    again = [(await _answer(reader, writer, _again(id)), (id, size)) for id, size in found[:: max(1, len(found) // _ASKED_AGAIN)]]
    writer.close()
    return Kept(
        streams=len(found),
        stream_bytes=sum(size for _, size in found) // len(found),
        seconds=seconds,
        cpu_ms_per_stream=(spent.cpu_ns - idle.cpu_ns) / 1e6 / len(found),
        user_ms_per_stream=(spent.user_ticks - idle.user_ticks) * 1000 / os.sysconf("SC_CLK_TCK") / len(found),
        idle_mb=idle.pss_kb / 1024,
        most_mb=most_kb / 1024,
        after_mb=after_kb / 1024,
        asked_again=len(again),
        served_again=sum(answer == before for answer, before in again),
    )


def _body(number: int) -> str:
    """Return the body of a chat request, as the AI SDK sends it."""
    message = {"role": "user", "parts": [{"type": "text", "text": "x" * 200}]}
    return json.dumps({"id": f"chat-{number:08}", "messages": [message] * 4, "trigger": "submit-message"})


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
