"""`python -m bench`: measures, prints Markdown tables on stdout and progress on stderr.

Exits 0 whatever the figures are, 1 when a server that is installed could not be measured.

Only figures of one call compare, as ratios. A p50 of `paced` beyond some milliseconds says that others kept the machine busy: then events
come in bursts, which makes each cheaper, and the servers look more alike than they are.
"""

import argparse
import datetime
import os
import platform
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from . import framer, topics
from .measure import Measurement, MeasurementError, Workload, measure, run_origin
from .process_tree import measuring_cpus
from .servers import SERVERS, program, python
from .tables import topic_table, workload_table

_WARM_UP_SECONDS = 0.5


def workloads(streams: int) -> dict[str, Workload]:
    """The workloads over sockets; `streams` is for the paced one."""
    return {
        "paced": Workload(f"paced: {streams} streams × 20 events/s × 60 bytes, as language models send", streams, 60, rate=20),
        "flat": Workload("flat: 100 streams of 200-byte events, as fast as they go", 100, 200),
        "requests": Workload("requests: POST answered with 50 events of 60 bytes, 50 connections kept alive", 50, 60, count=50),
        "cut": Workload("cut: 50 streams × 100 events/s, chunks and writes cut at random bytes", 50, 200, rate=100, cut=7),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m bench",
        description="Measures the gateway in direct mode beside the proxies that are installed, and the producer's topics.",
        epilog="BENCH_PEERS names a folder with programs that are not on PATH; GATEWAY_PYTHON is the interpreter that runs the gateway.",
    )
    names = ("framer", "topics", *workloads(0))
    parser.add_argument("what", nargs="*", metavar="WHAT", help=f"any of {', '.join(names)}; default all")
    parser.add_argument("--streams", type=int, default=300, help="streams of the workload paced (default 300)")
    parser.add_argument("--events", type=int, default=1_000_000, help="events that are replayed; a tenth is published (default 1000000)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one measurement (default 3)")
    parser.add_argument("--repeat", type=int, default=3, help="measurements of each server, of which medians are shown (default 3)")
    parser.add_argument("--servers", default=",".join(SERVERS), help="of %(default)s (default all that are installed)")
    arguments = parser.parse_args()
    arguments.what = arguments.what or names
    arguments.servers = arguments.servers.split(",")
    for got, allowed in ((arguments.what, names), (arguments.servers, tuple(SERVERS))):
        unknown = [name for name in got if name not in allowed]
        if unknown:
            parser.error(f"{unknown[0]!r} is none of {', '.join(allowed)}")
    if arguments.streams < 1 or arguments.repeat < 1 or arguments.seconds <= 0 or arguments.events < 1000:
        parser.error("--streams, --repeat and --seconds must be positive, --events at least 1000")
    return arguments


def _measure_all(workload: Workload, servers: Sequence[str], origin_port: int, seconds: float, repeat: int) -> dict[str, list[Measurement]]:
    """Measures the servers in turns, so that what else the machine does meets all of them alike."""
    results: dict[str, list[Measurement]] = {name: [] for name in servers}
    for turn in range(1, repeat + 1):
        for name in servers:
            print(f"{workload.title.partition(':')[0]} {turn}/{repeat}: {name}", file=sys.stderr, flush=True)
            try:
                results[name].append(measure(name, workload, origin_port, _WARM_UP_SECONDS, seconds))
            except MeasurementError as error:
                print(f"  {error}", file=sys.stderr, flush=True)
    return results


def _measure_topics(events: int, repeat: int) -> list[list[topics.TopicMeasurement]]:
    measurements: dict[str, Callable[[], topics.TopicMeasurement]] = {
        "single events": lambda: topics.publish_singly(events // 100),
        "batches": lambda: topics.publish_batches(events // 1000),
        "replay": lambda: topics.replay(events // 1000 * 1000),
    }
    results: dict[str, list[topics.TopicMeasurement]] = {name: [] for name in measurements}
    for turn in range(1, repeat + 1):
        for name, take in measurements.items():
            print(f"topics {turn}/{repeat}: {name}", file=sys.stderr, flush=True)
            results[name].append(take())
    return list(results.values())


def _versions() -> str:
    command = (
        "from importlib import metadata; import platform; print(platform.python_version(), 'with aiohttp', metadata.version('aiohttp'))"
    )
    answer = subprocess.run([python(), "-c", command], capture_output=True, text=True, check=True)
    return "Python " + answer.stdout.strip()


def _machine() -> str:
    """One line: when and where this was measured, and with what."""
    models = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    pinning = "server on one CPU, origin and load on another" if measuring_cpus() else "one CPU for all, nothing pinned"
    cpu = f"{os.cpu_count()} × {models[0] if models else platform.machine()}"
    return f"{datetime.date.today()}, {cpu}, Linux {platform.release()}, {_versions()}; {pinning}."


def main() -> None:
    """Measures what the command line asks for."""
    if not Path("/proc/self/schedstat").exists():
        raise SystemExit("bench: needs Linux with /proc and schedstat, by which CPU time is measured")
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # an exception, so that all that runs is ended
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    failed = False
    if "framer" in arguments.what:
        print(framer.report(arguments.repeat), end="\n\n", flush=True)
    if "topics" in arguments.what:
        print(topic_table(_measure_topics(arguments.events, arguments.repeat)), end="\n\n", flush=True)
    offered = {name: workload for name, workload in workloads(arguments.streams).items() if name in arguments.what}
    if offered:
        installed = [name for name in arguments.servers if program(name)]
        with run_origin() as origin_port:
            for workload in offered.values():
                repeat = 1 if workload.cut else arguments.repeat  # the defects count there, not the figures
                results = _measure_all(workload, installed, origin_port, arguments.seconds, repeat)
                failed |= not all(results.values())
                print(workload_table(workload, results), end="\n\n", flush=True)
        if missing := [name for name in arguments.servers if name not in installed]:
            print(f"Not installed: {', '.join(missing)}.", end="\n\n")
    print(_machine(), flush=True)
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
