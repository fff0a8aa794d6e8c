"""The embedded event log fulfils the contract of every event log."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from producer.log.event_log import EventLog
from producer.log.sqlite_log import SqliteEventLog
from tests.producer.event_log_contract import EventLogContract, OpenLog


class TestSqliteEventLog(EventLogContract):
    @pytest.fixture
    def open_log(self, tmp_path: Path) -> OpenLog:
        @asynccontextmanager
        async def open_log(**options: Any) -> AsyncIterator[EventLog]:
            async with await SqliteEventLog.open(tmp_path / "log", **options) as log:
                yield log

        return open_log
