"""What a server uses, all its processes together, from `/proc` (Linux); and how to pin and end processes."""

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
    """What the processes have used until now."""

    cpu_ns: int
    """Time on a CPU of the threads that live."""
    user_ticks: int
    """User time in clock ticks, which is coarse: good for a share of `all_ticks` only."""
    all_ticks: int
    """User and system time in clock ticks."""
    pss_kb: int
    """Memory, shared pages counted in parts."""


def descendants(pid: int) -> list[int]:
    """Gives `pid` and the processes below it."""
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
    """Measures `pid` and the processes below it. Raises OSError when `pid` has ended."""
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
    """The fields of `/proc/PID/stat` behind the command's name, from the state on (proc(5) field 3)."""
    return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()


def measuring_cpus() -> tuple[int, int] | None:
    """Gives the CPU of the server and that of origin and load; None when there is one only."""
    cpus = sorted(os.sched_getaffinity(0))
    return (cpus[0], cpus[1]) if len(cpus) > 1 else None


@contextmanager
def pinned(cpu: int | None) -> Iterator[None]:
    """Processes that are started inside run on `cpu`, with all their threads; None pins nothing."""
    before = os.sched_getaffinity(0)
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def end(process: subprocess.Popen[bytes]) -> None:
    """Kills `process` and those below it, and waits for it."""
    if process.poll() is None:
        for pid in reversed(descendants(process.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    process.wait(10)
