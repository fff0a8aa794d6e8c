"""The usage of a server with all its processes, from `/proc` (Linux); pinning and ending of processes."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Usage:
    """The usage of the processes until now."""

    cpu_ns: int
    """Time on a CPU of the living threads."""
    user_ticks: int
    """User time in clock ticks, which is coarse: good only as a share of `all_ticks`."""
    all_ticks: int
    """User and system time in clock ticks."""
    pss_kb: int
    """Memory, with shared pages counted proportionally."""


def descendants(pid: int) -> list[int]:
    """Return `pid` and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it has ended meanwhile
                children.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
    found = [pid]
    for parent in found:
        found += children.get(parent, [])
    return found


def usage(pid: int) -> Usage:
    """Measure `pid` and its descendants. Raises OSError when `pid` has ended."""
    cpu_ns = user = total = pss = 0
    for process in descendants(pid):
        try:
            stat = _stat(process)
            user += int(stat[11])
            total += int(stat[11]) + int(stat[12])
            for thread in (_PROC / str(process) / "task").iterdir():
                with suppress(OSError):  # a thread has ended meanwhile
                    cpu_ns += int((thread / "schedstat").read_text().split()[0])
            found = re.search(r"^Pss:\s+(\d+)", (_PROC / str(process) / "smaps_rollup").read_text(), re.MULTILINE)
            pss += int(found[1]) if found else 0
        except OSError:
            if process == pid:
                raise
    return Usage(cpu_ns, user, total, pss)


def _stat(pid: int) -> list[str]:
    """Return the fields of `/proc/PID/stat` after the command's name, from the state on (proc(5) field 3)."""
    return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()


def measuring_cpus() -> tuple[int, int] | None:
    """Return the CPU of the server and that of origin and load; None when there is only one."""
    cpus = sorted(os.sched_getaffinity(0))
    return (cpus[0], cpus[1]) if len(cpus) > 1 else None


@contextmanager
def pinned(cpu: int | None) -> Iterator[None]:
    """Run processes that are started inside on `cpu`, with all their threads; None pins nothing."""
    before = os.sched_getaffinity(0)
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill `process` and its descendants, and wait for it."""
    if process.poll() is None:
        for pid in reversed(descendants(process.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    process.wait(10)
