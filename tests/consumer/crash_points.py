"""Kill a process that works on a log at each of its system calls in turn: before it, after it, and for writes halfway through it.

Print the number of crashes. It is a process of its own, because it forks.
"""

import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from consumer.audit import Audit
from consumer.log import EventLog, Rotation
from consumer.upkeep import Retention, compress_closed, remove_old
from tests.kit.consumer import SOURCE, lines_of, read_lines, record

EVENTS = 9
CALLS = ("open", "write", "fsync", "rename", "unlink", "truncate", "utime")


class CrashPoint:
    """Count the system calls, and end the process at the chosen one."""

    def __init__(self, chosen: int, mode: str) -> None:
        self._left = chosen
        self._mode = mode

    def arm(self) -> None:
        for name in CALLS:
            setattr(os, name, self._wrap(name, getattr(os, name)))

    def _wrap(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            self._left -= 1
            if self._left >= 0:
                return call(*arguments, **options)
            if self._mode == "half" and name == "write":
                call(arguments[0], arguments[1][: len(arguments[1]) // 2])
            elif self._mode == "after":
                call(*arguments, **options)
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError("still alive")

        return wrapped


def work(directory: Path, acknowledge: Callable[[int], object]) -> None:
    """Log the events after the checkpoint, with all the upkeep in between, and acknowledge each that is durable."""
    with EventLog(directory, Rotation(max_bytes=2 * len(record(1).encode())), source=SOURCE, window=100) as log:
        begin = int(log.recovered.checkpoint or 0) + 1
        assert log.recovered.next_number == begin, "each event is one line"
        for number in range(begin, EVENTS + 1, 2):
            log.append(lines_of(range(number, min(number + 2, EVENTS + 1))))
            durable = log.flush()
            acknowledge(number + len(durable) - 1)
            if number > EVENTS // 2:
                compress_closed(directory, threading.Event())
        remove_old(directory, Retention(max_bytes=10**9))


def crash(directory: Path, chosen: int, mode: str) -> tuple[bool, int]:
    """Work in a child that dies at the chosen call. Return whether it died, and the newest event that it acknowledged."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        write = os.write
        try:
            CrashPoint(chosen, mode).arm()
            work(directory, lambda number: write(writing, bytes([number])))
        finally:
            os._exit(7 if sys.exc_info()[0] else 0)
    os.close(writing)
    with os.fdopen(reading, "rb") as acknowledged:
        newest = max(acknowledged.read(), default=0)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, f"status {status} at call {chosen}, {mode}"
    return os.WIFSIGNALED(status), newest


def main(root: Path) -> None:
    crashes = 0
    for mode in ("before", "half", "after"):
        chosen = 0
        died = True
        while died:
            directory = root / f"{mode}-{chosen}"
            died, acknowledged = crash(directory, chosen, mode)
            crashes += died
            # A second crash at about the place where recovery works, then a run without one.
            died_again, acknowledged_again = crash(directory, chosen % 7, mode)
            crashes += died_again
            if directory.is_dir():
                logged = len(read_lines(directory))
                assert logged >= max(acknowledged, acknowledged_again), f"{directory}: {logged} logged, {acknowledged} acknowledged"
            work(directory, lambda number: None)
            assert read_lines(directory) == lines_of(range(1, EVENTS + 1)), directory
            audit = Audit(directory)
            problems = [problem for _, _, found in audit.check() for problem in found]
            assert not problems, (directory, problems)
            assert audit.events == EVENTS
            shutil.rmtree(directory)
            chosen += 1
    sys.stdout.write(f"{crashes} crashes\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
