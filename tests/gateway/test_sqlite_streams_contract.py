"""The embedded store of kept streams does what every such store must."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.modes.resumable.sqlite_store import SqliteStreamStore
from gateway.modes.resumable.store import StreamStore
from tests.gateway.stream_store_contract import NOW, RETAIN_SECONDS, OpenStore, StreamStoreContract


class TestSqliteStreamStore(StreamStoreContract):
    @pytest.fixture
    def open_store(self, tmp_path: Path) -> OpenStore:
        @asynccontextmanager
        async def open_store() -> AsyncIterator[StreamStore]:
            store = await SqliteStreamStore.open(tmp_path, retain_seconds=RETAIN_SECONDS, group_seconds=0.001, clock=lambda: NOW)
            async with store:
                yield store

        return open_store
