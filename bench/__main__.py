"""`python -m bench`: measure, print Markdown tables on stdout and progress on stderr.

The exit status is 0 whatever the figures are, and 1 when an installed server could not be measured.

Only figures of one run are comparable, as ratios. A p50 of `paced` above some milliseconds means that other programs kept the machine
busy. Then events come in bursts, which makes each cheaper, and the servers look more alike than they are.
"""

import argparse
import datetime
import os
import platform
import resource
import signal
import subprocess
import sys
from pathlib import Path

from . import event_log, framer, resumable
from .comparison import compare_hubs, compare_proxies, measure_topics
from .fan_out import fan_outs
from .hubs import HUBS
from .measure import Workload
from .process_tree import measuring_cpus
from .servers import SERVERS, python


def workloads(streams: int) -> dict[str, Workload]:
    """Return the workloads over sockets; `streams` is for the paced one."""
    return {
        "paced": Workload(f"paced: {streams} streams × 20 events/s × 60 bytes, as language models send", streams, 60, rate=20),
        "flat": Workload("flat: 100 streams of 200-byte events, as fast as they go", 100, 200),
        "requests": Workload("requests: POST answered with 50 events of 60 bytes, 50 connections kept alive", 50, 60, count=50),
        "cut": Workload("cut: 50 streams × 100 events/s, chunks and writes cut at random bytes", 50, 200, rate=100, cut=7),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m bench",
        description="Measure the gateway beside the installed proxies and hubs, and the producer's topics.",
        epilog="BENCH_PEERS names a directory with programs that are not on PATH; GATEWAY_PYTHON is the interpreter that runs the gateway.",
    )
    names = ("framer", "log", "topics", "resumable", *workloads(0), *fan_outs(None))
    servers = tuple(dict.fromkeys((*SERVERS, *HUBS)))
    parser.add_argument("what", nargs="*", metavar="WHAT", help=f"any of {', '.join(names)}; default all")
    parser.add_argument("--streams", type=int, help="streams of paced (default 300) and resumable (1000)")
    parser.add_argument(
        "--subscribers", type=int, help="subscribers of the workloads with one stream for all (default: as in their titles)"
    )
    parser.add_argument("--kept", type=int, default=10_000, help="streams that mode resumable keeps (default 10000)")
    parser.add_argument("--events", type=int, default=1_000_000, help="events to replay, a tenth of a large log (default 1000000)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one measurement (default 3)")
    parser.add_argument("--repeat", type=int, default=3, help="measurements of each server, whose medians are shown (default 3)")
    parser.add_argument("--servers", default=",".join(servers), help="any of %(default)s (default: all installed ones)")
    arguments = parser.parse_args()
    arguments.what = arguments.what or names
    arguments.servers = arguments.servers.split(",")
    for got, allowed in ((arguments.what, names), (arguments.servers, servers)):
        unknown = [name for name in got if name not in allowed]
        if unknown:
            parser.error(f"must be one of {', '.join(allowed)}, got {unknown[0]!r}")
    if arguments.subscribers is not None and arguments.subscribers < 1:
        parser.error("--subscribers must be positive")
    if min(arguments.streams or 1, arguments.kept) < 1 or arguments.repeat < 1 or arguments.seconds <= 0 or arguments.events < 1000:
        parser.error("--streams, --kept, --repeat and --seconds must be positive, --events at least 1000")
    return arguments


def _versions() -> str:
    command = (
        "from importlib import metadata; import platform; print(platform.python_version(), 'with aiohttp', metadata.version('aiohttp'))"
    )
    answer = subprocess.run([python(), "-c", command], capture_output=True, text=True, check=True)
    return "Python " + answer.stdout.strip()


def _machine() -> str:
    """Return one line: when, where and with which versions this was measured."""
    models = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    pinning = "server on one CPU, origin and load on another" if measuring_cpus() else "one CPU for all, nothing pinned"
    cpu = f"{os.cpu_count()} × {models[0] if models else platform.machine()}"
    return f"{datetime.date.today()}, {cpu}, Linux {platform.release()}, {_versions()}; {pinning}."


def main() -> None:
    """Measure the workloads of the command line."""
    if not Path("/proc/self/schedstat").exists():
        raise SystemExit("bench: needs Linux with /proc and schedstat, by which CPU time is measured")
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # an exception, so that all processes are ended
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    complete = True
    if "framer" in arguments.what:
        print(framer.report(arguments.repeat), end="\n\n", flush=True)
    if "log" in arguments.what:
        print(event_log.report(arguments.repeat, events=arguments.events), end="\n\n", flush=True)
    if "topics" in arguments.what:
        measure_topics(arguments.events, arguments.repeat)
    if "resumable" in arguments.what:
        print(resumable.report(arguments.streams or 1000, arguments.kept, arguments.seconds, arguments.repeat), end="\n\n", flush=True)
    if offered := [workload for name, workload in workloads(arguments.streams or 300).items() if name in arguments.what]:
        complete &= compare_proxies(offered, arguments.servers, arguments.seconds, arguments.repeat)
    if fanned := [workload for name, workload in fan_outs(arguments.subscribers).items() if name in arguments.what]:
        complete &= compare_hubs(fanned, arguments.servers, arguments.seconds, arguments.repeat)
    print(_machine(), flush=True)
    raise SystemExit(not complete)


if __name__ == "__main__":
    main()
