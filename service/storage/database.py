"""An open SQLite file that one process owns: its lock, transactions, write-ahead log, and space on the device."""

import contextlib
import math
import os
import sqlite3
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Generic

from .file_format import BUSY_SECONDS, E, FileFormat
from .lock import lock

RESERVE_BYTES = 16 * 1024 * 1024
"""Space on the device that new data leaves free (on a small device, a sixteenth), for removals and checkpoints."""
SPARE_BYTES = 16 * 1024 * 1024
"""Unused pages that a file keeps for new data."""

_CHECKPOINT_PAGES = 2000
_ROWS_AT_ONCE = 256


class Database(Generic[E]):
    """A file in a directory of its own, used by one thread at a time; every method may block on the disk."""

    connection: sqlite3.Connection

    def __init__(
        self,
        file_format: FileFormat[E],
        directory: Path,
        *,
        wal_bytes: int,
        pragmas: Sequence[str],
        first: Sequence[tuple[str, Sequence[object]]] = (),
        checkpoint_wait_seconds: float = BUSY_SECONDS,
    ) -> None:
        """Lock the directory and open the file; create both if missing, the file with the rows that `first` inserts.

        `wal_bytes` limits the write-ahead log, as far as no reader blocks a checkpoint. Raises the service's errors, OSError.
        """
        self.path = directory / file_format.file
        self.wal_bytes = wal_bytes
        self._format = file_format
        self._checkpoint_wait_ms = int(checkpoint_wait_seconds * 1000)
        directory.mkdir(0o700, parents=True, exist_ok=True)
        with contextlib.ExitStack() as opened:
            try:
                opened.callback(os.close, lock(directory / file_format.lock))
            except BlockingIOError:
                raise file_format.in_use(directory) from None
            file_format.find_or_create(self.path, first)
            self.connection = opened.enter_context(contextlib.closing(file_format.connect(self.path)))
            with self.errors():
                [self._page_bytes] = self.connection.execute("PRAGMA page_size").fetchone()
                checkpoint_pages = min(_CHECKPOINT_PAGES, wal_bytes // 2 // self._page_bytes)
                # Some systems overwrite removed data by default.
                for pragma in (f"wal_autocheckpoint = {checkpoint_pages}", "secure_delete = OFF", *pragmas):
                    self.connection.execute(f"PRAGMA {pragma}").fetchone()
                file_format.upgrade(self.connection, self.path)
                file_format.check_schema(self.connection, self.path)
            self._opened = opened.pop_all()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}>"

    def errors(self) -> AbstractContextManager[None]:
        """Raise the service's errors in place of SQLite's."""
        return self._format.errors(self.path)

    def connect(self) -> sqlite3.Connection:
        """Open another connection, for one thread at a time. Raises the service's errors."""
        with self.errors():
            return self._format.connect(self.path)

    def transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        """Commit at the end, or roll back on an error. Raises the service's errors."""
        return self._format.transaction(self.connection, self.path)

    def insert(self, statement: str, columns: int, values: Sequence[object], conflict: str = "") -> None:
        """Insert many rows with few statements: each releases the interpreter's lock, and a busy event loop is slow to return it.

        Powers of two keep the number of prepared statements small. Raises sqlite3.Error.
        """
        row = "(" + ", ".join("?" * columns) + ")"
        done, total = 0, len(values) // columns
        while done < total:
            count = min(_ROWS_AT_ONCE, 1 << (total - done).bit_length() - 1)
            some = values if count == total else values[done * columns : (done + count) * columns]
            self.connection.execute(f"{statement} VALUES {', '.join([row] * count)}{conflict}", some)
            done += count

    def room(self) -> int:
        """Return how many bytes may still be written to the device beside the reserve. Raises the service's errors.

        The growth of the file by its next checkpoint counts as written.
        """
        with self.errors():
            device = os.statvfs(self.path.parent)
            unwritten = max(0, self.pages()[0] - self.path.stat().st_size)
            return device.f_bavail * device.f_frsize - unwritten - min(RESERVE_BYTES, device.f_blocks * device.f_frsize // 16)

    def pages(self) -> tuple[int, int]:
        """Return the bytes of all pages of the file, and those of unused pages, which new data takes before the file grows.

        Raises the service's errors.
        """
        with self.errors():
            [[pages], [unused]] = (self.connection.execute(f"PRAGMA {fact}").fetchone() for fact in ("page_count", "freelist_count"))
        return pages * self._page_bytes, unused * self._page_bytes

    def give_back(self, step_pages: int, *, most_bytes: float = math.inf) -> bool:
        """Give some unused pages back to the device; return False if there is nothing to do.

        That is when more than a quarter of the file is unused, when the file has more than `most_bytes`, or when the device is nearly
        full; otherwise new data will take the pages. Raises the service's errors.
        """
        size, unused = self.pages()
        urgent = size > most_bytes or self.room() < RESERVE_BYTES // 4
        if unused < (step_pages * self._page_bytes if urgent else max(SPARE_BYTES, size // 4)):
            return False
        with self.errors():
            self.connection.executescript(f"PRAGMA incremental_vacuum({step_pages})")  # `execute` would stop after one page
        if urgent:
            self.checkpoint()  # frees the pages on the device
        return True

    def checkpoint(self) -> bool:
        """Move the write-ahead log into the file and empty it; return False if readers block that for `checkpoint_wait_seconds`.

        Raises the service's errors.
        """
        with self.errors():
            self.connection.execute(f"PRAGMA busy_timeout = {self._checkpoint_wait_ms}")
            try:
                [(busy, _, _)] = self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            finally:
                self.connection.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")
        return not busy

    def close(self) -> None:
        """Close the file and release the directory; the last connection that closes moves the write-ahead log into the file."""
        self._opened.close()
