"""Looks into the file of the embedded store of kept streams."""

import sqlite3
from contextlib import closing
from pathlib import Path

from gateway.modes.resumable.sqlite_file import FILE


def assert_clean(directory: Path) -> None:
    """SQLite finds nothing wrong with the file, and no part in it is of a stream that is not there."""
    with closing(sqlite3.connect(directory / FILE)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        strays = "SELECT DISTINCT stream FROM parts WHERE stream NOT IN (SELECT number FROM streams)"
        assert connection.execute(strays).fetchall() == []
        assert connection.execute("SELECT stream FROM endings WHERE stream NOT IN (SELECT number FROM streams)").fetchall() == []
