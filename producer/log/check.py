"""The command that checks an event log."""

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from service.progress import Progress

from .event_log import LogError, is_whole_block
from .sqlite_schema import FILE, FORMAT

_MOST_PROBLEMS = 100


def check(directory: Path) -> int:
    """Check the event log in DIR, even while a producer writes it, and print each problem and a summary.

    It checks the file's structure, every event (its id, that it is one whole event block, the order of offsets and times), and the
    counts and bytes of topics. Meanwhile the write-ahead log of a running producer grows.
    The exit status is 0 only if the log is clean, 1 if there are problems, 2 if DIR is not a log.
    """
    path = directory / FILE
    if not path.exists() and not path.with_name(path.name + "-wal").exists():
        sys.stderr.write(f"{directory}: not an event log ({FILE} is missing)\n")
        return 2
    audit = LogAudit(path)
    progress = Progress()
    for problem in audit.check():
        if problem:
            progress.clear()
            sys.stdout.write(f"{problem}\n")
        if progress.due:
            progress.show(f"{audit.events} events, {audit.problems} problems")
    progress.clear()
    sys.stdout.write("".join(f"{line}\n" for line in _summary(audit)))
    return 1 if audit.problems else 0


@dataclass(slots=True)
class LogAudit:
    """The check of one file: iterate `check` to its end, then read the counts."""

    path: Path
    events: int = 0
    bytes: int = 0
    topics: int = 0
    dropped_events: int = 0
    """Events of dropped topics that are still in the file."""
    first: int = 0
    last: int = 0
    epoch: str = ""
    problems: int = 0
    _counted: dict[int, list[int]] = field(default_factory=dict)
    """By topic: number of events, their bytes, offset of the first and of the last."""

    def check(self) -> Iterator[str]:
        """Yield each problem, and an empty string now and then. Everything is read from one snapshot."""
        for problem in self._steps():
            self.problems += bool(problem)
            yield problem
            if self.problems >= _MOST_PROBLEMS:
                yield f"{self.path.name}: stopped after {_MOST_PROBLEMS} problems; there may be more"
                return

    def _steps(self) -> Iterator[str]:
        try:
            FORMAT.recognise(self.path)
            connection = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=10)
        except (LogError, OSError, sqlite3.Error) as error:
            yield str(error)
            return
        try:
            with closing(connection), FORMAT.transaction(connection, self.path, begin="BEGIN"):
                FORMAT.check_schema(connection, self.path)
                for (line,) in connection.execute(f"PRAGMA integrity_check({_MOST_PROBLEMS})"):
                    yield "" if line == "ok" else f"{self.path.name}: {line}"
                yield from self._check_events(connection)
                yield from self._check_topics(connection)
                yield from self._check_keys(connection)
        except LogError as error:
            yield str(error)

    def _check_events(self, connection: sqlite3.Connection) -> Iterator[str]:
        [self.epoch] = connection.execute("SELECT epoch FROM state").fetchone()
        prefix = f"id: {self.epoch}-".encode()
        before_ms = 0
        for offset, topic, time_ms, block in connection.execute("SELECT offset, topic, time_ms, block FROM events ORDER BY offset"):
            if not (isinstance(block, bytes) and isinstance(time_ms, int)):
                yield f"event {offset}: its columns have the wrong types"
                continue
            self.events += 1
            self.bytes += len(block)
            self.first, self.last = self.first or offset, offset
            id = b"%b%d\n" % (prefix, offset)
            if not block.startswith(id):
                yield f"event {offset}: it begins with {block[: len(id)]!r} instead of its id {id!r}"
            elif not is_whole_block(block[len(id) :]):
                yield f"event {offset}: it is not exactly one event block"
            if time_ms < before_ms:
                yield f"event {offset}: its time {time_ms} is before {before_ms}, that of the previous event"
            before_ms = time_ms
            counted = self._counted.setdefault(topic, [0, 0, offset, offset])
            counted[0] += 1
            counted[1] += len(block)
            counted[3] = offset
            if not self.events % 1000:
                yield ""

    def _check_topics(self, connection: sqlite3.Connection) -> Iterator[str]:
        dropped = {id for (id,) in connection.execute("SELECT id FROM dropped")}
        [(begin, gone, forgotten)] = connection.execute("SELECT begin, gone_through, forgotten_through FROM state").fetchall()
        for id, name, *known, gone_through in connection.execute("SELECT * FROM topics"):
            self.topics += 1
            count, size, first, last = self._counted.pop(id, (0, 0, 0, 0))
            if known != [count, size, last]:
                written = f"{known[0]} events of {known[1]} bytes up to {known[2]}"
                yield f"topic {name!r}: {written} are recorded, but {count} of {size} up to {last} exist"
            if first and first <= gone_through:
                yield f"topic {name!r}: all events up to {gone_through} should be gone, but {first} exists"
            forgotten = max(forgotten, gone_through)
        if forgotten != gone:
            yield f"log: the newest removed offset is recorded as {gone}, but that of its topics is {forgotten}"
        for id, (count, _, first, _) in self._counted.items():
            self.dropped_events += count
            if id not in dropped:
                yield f"event {first}: its topic number {id} does not exist; {count} events"
        if max(self.last, gone) < begin - 1 and begin > 1:
            yield f"log: it continued at offset {begin}, but the newest offset is {max(self.last, gone)}"

    def _check_keys(self, connection: sqlite3.Connection) -> Iterator[str]:
        [newest] = connection.execute("SELECT max(?, gone_through) FROM state", (self.last,)).fetchone()
        topics = "SELECT id FROM topics UNION SELECT id FROM dropped"
        sql = f"SELECT name, first, last FROM keys WHERE first > last OR last > ? OR topic NOT IN ({topics})"  # noqa: S608  # a constant
        for name, first, last in connection.execute(sql, (newest,)):
            yield f"idempotency key {name!r}: it refers to the events {first} to {last}, which never existed"


def _summary(audit: LogAudit) -> Iterator[str]:
    yield f"epoch: {audit.epoch}"
    yield f"events: {audit.events}, {audit.bytes} bytes, of {audit.topics} topics"
    if audit.events:
        yield f"offsets: {audit.first} to {audit.last}"
    if audit.dropped_events:
        yield f"note: {audit.dropped_events} events of dropped topics are still in the file, invisible to readers"
    yield "clean" if not audit.problems else f"NOT CLEAN: {audit.problems} problems"
