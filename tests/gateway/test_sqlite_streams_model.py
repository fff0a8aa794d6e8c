"""The embedded store of kept streams against a plain dict, in any order of what can be done to it, stops included."""

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.modes.resumable.sqlite_store import SqliteStreamStore
from gateway.modes.resumable.store import COMPLETE, CUT, EXPIRED, ORPHANED, RUNNING, STOPPED, TOO_LARGE, StoreError, StreamHead
from tests.gateway.stream_store_contract import DAY_SECONDS, RETAIN_SECONDS, expire_all, find

T = TypeVar("T")

ids = st.sampled_from(["a", "b", "c", "d", "e"])
routes = st.sampled_from(["/sse", "/"])
keys = st.sampled_from(["", "k", "l"])
credentials = st.sampled_from([b"", b"\x00", b"c"])
blocks = st.binary(max_size=20) | st.integers(1, 20_000).map(lambda size: b"\xff" * size)
states = st.sampled_from([COMPLETE, CUT, STOPPED, ORPHANED, TOO_LARGE])
durations = st.sampled_from([0.5, 10.0, 299.0, 301.0, DAY_SECONDS / 2, DAY_SECONDS])


@dataclass(slots=True)
class Kept:
    """A stream in the model."""

    head: StreamHead
    order: int
    state: str = RUNNING
    reason: str = ""
    blocks: bytes = b""
    ended_at: float = 0.0
    keep_until: float = 0.0
    dropped_at: float = field(default=0.0)


class StreamStoreModel(RuleBasedStateMachine):
    """`kept` is what the store has; `now` is its clock."""

    @initialize()
    def begin(self) -> None:
        self.runner = asyncio.Runner()
        self.directory = Path(tempfile.mkdtemp())
        self.kept: dict[str, Kept] = {}
        self.order = 0
        self.now = 1_700_000_000.0
        self.open()

    def teardown(self) -> None:
        self.run(self.store.close())
        self.runner.close()
        shutil.rmtree(self.directory)

    def run(self, what: Coroutine[Any, Any, T]) -> T:
        async def guarded() -> T:
            async with asyncio.timeout(120):
                return await what

        return self.runner.run(guarded())

    def open(self) -> None:
        opening = SqliteStreamStore.open(self.directory, retain_seconds=RETAIN_SECONDS, group_seconds=0, clock=lambda: self.now)
        self.store = self.run(opening)

    def running(self, id: str) -> Kept | None:
        stream = self.kept.get(id)
        return stream if stream is not None and stream.state == RUNNING else None

    @rule(id=ids, route=routes, credentials=credentials, key=keys, field=st.text(max_size=5))
    def create(self, id: str, route: str, credentials: bytes, key: str, field: str) -> None:
        head = StreamHead(id, route, "POST", route, credentials, b"", key, [("Field", field)], self.now)
        if id in self.kept:
            with pytest.raises(StoreError):
                self.run(self.store.create(head))
            return
        self.run(self.store.create(head))
        self.order += 1
        self.kept[id] = Kept(head, self.order)

    @rule(several=st.lists(st.tuples(ids, blocks), min_size=1, max_size=8))
    def append(self, several: list[tuple[str, bytes]]) -> None:
        async def append_all() -> list[BaseException | None]:
            return await asyncio.gather(*(self.store.append(id, blocks) for id, blocks in several), return_exceptions=True)

        for (id, blocks), outcome in zip(several, self.run(append_all()), strict=True):
            stream = self.running(id)
            assert isinstance(outcome, StoreError) == (stream is None)
            if stream is not None:
                stream.blocks += blocks

    @rule(id=ids, state=states, reason=st.text(max_size=5), seconds=durations)
    def finish(self, id: str, state: str, reason: str, seconds: float) -> None:
        stream = self.running(id)
        if stream is None:
            with pytest.raises(StoreError):
                self.run(self.store.finish(id, state, reason, self.now))
            return
        self.run(self.store.finish(id, state, reason, self.now + seconds))
        stream.state, stream.reason, stream.ended_at, stream.keep_until = state, reason, self.now, self.now + seconds

    @rule(id=ids, key=keys, parts=st.lists(blocks, max_size=4), state=states)
    def keep_at_once(self, id: str, key: str, parts: list[bytes], state: str) -> None:
        """Begin and end a stream in one group."""
        head = StreamHead(id, "/", "POST", "/", b"", b"", key, [], self.now)

        async def keep() -> list[BaseException | None]:
            calls = [self.store.create(head), *(self.store.append(id, part) for part in parts), self.store.finish(id, state, "", self.now)]
            return await asyncio.gather(*calls, return_exceptions=True)

        outcomes = self.run(keep())
        if id in self.kept:
            assert {type(outcome) for outcome in outcomes} == {StoreError}
            return
        assert set(outcomes) == {None}
        self.order += 1
        self.kept[id] = Kept(head, self.order, state, "", b"".join(parts), self.now, self.now)

    @rule(seconds=durations)
    def expire(self, seconds: float) -> None:
        self.now += seconds
        dealt_with = self.run(expire_all(self.store, self.now))
        for id, stream in [*self.kept.items()]:
            if stream.state not in (RUNNING, EXPIRED) and stream.keep_until <= self.now:
                stream.reason = f"{stream.state}: {stream.reason}" if stream.reason else stream.state
                stream.state, stream.blocks, stream.dropped_at = EXPIRED, b"", self.now
                stream.head = StreamHead(id, "", "", "", b"", b"", "", [], 0.0)
                dealt_with -= 1
            elif stream.state == EXPIRED and stream.dropped_at <= self.now - DAY_SECONDS:
                del self.kept[id]
                dealt_with -= 1
        assert dealt_with == 0

    @precondition(lambda self: self.order > 0)
    @rule(seconds=durations)
    def reopen(self, seconds: float) -> None:
        self.run(self.store.close())
        self.now += seconds
        self.open()
        for stream in self.kept.values():
            if stream.state == RUNNING:
                stream.state, stream.reason = CUT, "the gateway stopped while it ran"
                stream.ended_at, stream.keep_until = self.now, self.now + RETAIN_SECONDS

    @rule(route=routes, credentials=credentials, key=keys)
    def find_key(self, route: str, credentials: bytes, key: str) -> None:
        asked = (route, credentials, key)
        same = [
            stream
            for stream in self.kept.values()
            if stream.state != EXPIRED and key and (stream.head.route, stream.head.credentials, stream.head.key) == asked
        ]
        newest = max(same, key=lambda stream: stream.order, default=None)
        assert self.run(self.store.find_key(*asked)) == (newest and newest.head.id)

    @invariant()
    def streams_are_as_in_the_model(self) -> None:
        for id in ("a", "b", "c", "d", "e"):
            found, stream = self.run(find(self.store, id)), self.kept.get(id)
            assert (found is None) == (stream is None)
            if found is not None and stream is not None:
                assert (found.head, found.state, found.reason) == (stream.head, stream.state, stream.reason)
                assert (found.blocks, found.ended_at) == (stream.blocks, stream.ended_at)


TestStreamStoreModel = StreamStoreModel.TestCase
TestStreamStoreModel.settings = settings(max_examples=40, stateful_step_count=25, suppress_health_check=[HealthCheck.too_slow])
