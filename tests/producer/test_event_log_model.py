"""The embedded event log against a plain list, in any order of operations, crashes included."""

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from producer.log.event_log import Appended, IdempotencyKey, KeyReused, Stored
from producer.log.retention import Retention
from producer.log.sqlite_log import SqliteEventLog
from tests.producer.sqlite_disk import Disk, disk

T = TypeVar("T")

KEEP = 12
NAMES = ["a", "b", "b.c", "d"]
topics = st.sampled_from(NAMES)
bodies = st.lists(st.text("xyz", max_size=3) | st.just("long" * 1500), min_size=1, max_size=4)
places = st.integers(0, 40)
keys = st.none() | st.sampled_from(["k", "l"])
appends = st.tuples(topics, bodies, keys)
subsets = st.none() | st.sets(topics).map(sorted) | st.sets(topics).map(lambda names: [*names, *(f"none{number}" for number in range(80))])


class EventLogModel(RuleBasedStateMachine):
    """`events` is what the log has, `gone` the newest offset of each topic that it no longer has, `known` the keys."""

    @initialize()
    def begin(self) -> None:
        self.runner = asyncio.Runner()
        self.root = Path(tempfile.mkdtemp())
        self.lives = 0
        self.events: list[Stored] = []
        self.gone: dict[str, int] = {}
        self.known: dict[tuple[str, str], tuple[bytes, Appended]] = {}
        self.last = 0
        self.told: list[Stored] = []
        self.directory = self.root / "0"
        self.open()
        self.epoch = self.log.epoch

    def teardown(self) -> None:
        self.run(self.log.close())
        self.runner.close()
        shutil.rmtree(self.root)

    def run(self, what: Coroutine[Any, Any, T]) -> T:
        async def guarded() -> T:
            async with asyncio.timeout(120):
                return await what

        return self.runner.run(guarded())

    def open(self) -> None:
        self.log = self.run(SqliteEventLog.open(self.directory, retention=Retention(max_events=KEEP), upkeep_seconds=10_000))
        self.run(asyncio.sleep(0))
        self.told.clear()
        self.log.watch(self.told.extend)

    async def append_all(self, several: Sequence[tuple[str, list[str], str | None]], done: dict[int, object]) -> None:
        async def append(number: int, topic: str, texts: list[str], key: str | None) -> None:
            blocks = [f"data: {text}\n\n".encode() for text in texts]
            try:
                done[number] = await self.log.append(topic, blocks, key and IdempotencyKey(key, repr(texts).encode()))  # type: ignore[arg-type]
            except KeyReused as error:
                done[number] = error

        await asyncio.gather(*(append(number, *one) for number, one in enumerate(several)))

    def take(self, topic: str, texts: list[str], key: str | None) -> object:
        """Append to the model, and return what the log should return."""
        earlier = self.known.get((topic, key or ""))
        if earlier:
            same = earlier[0] == repr(texts).encode()
            return Appended(earlier[1].first, earlier[1].last, repeated=True) if same else KeyReused
        first = self.last + 1
        for self.last, text in enumerate(texts, first):
            self.events.append(Stored(self.last, topic, f"id: {self.epoch}-{self.last}\ndata: {text}\n\n".encode()))
        if key:
            self.known[topic, key] = (repr(texts).encode(), Appended(first, self.last))
        return Appended(first, self.last)

    @rule(several=st.lists(appends, min_size=1, max_size=6))
    def append(self, several: list[tuple[str, list[str], str | None]]) -> None:
        before, done = self.last, dict[int, object]()
        self.told.clear()
        self.run(self.append_all(several, done))
        for number, one in enumerate(several):
            expected = self.take(*one)
            assert done[number] == expected or type(done[number]) is expected
        assert self.told == [event for event in self.events if event.offset > before]

    @rule(names=subsets, ends=st.tuples(places, places), max_events=st.integers(1, 30), max_bytes=st.sampled_from([1, 50, 10**6]))
    def read(self, names: list[str] | None, ends: tuple[int, int], max_events: int, max_bytes: int) -> None:
        after, upto = sorted(max(0, self.last - end) for end in ends)
        batch = self.run(self.log.read(after, upto, names, max_events=max_events, max_bytes=max_bytes))
        matching = [event for event in self.events if after < event.offset <= upto and (names is None or event.topic in names)]
        got = list(batch.events)
        assert got == matching[: len(got)]
        assert bool(got) or not matching
        assert len(got) <= max_events
        assert len(got) < 2 or sum(len(event.block) for event in got) <= max_bytes
        assert all(event in got for event in matching if event.offset <= batch.through)
        assert batch.through == upto if len(got) == len(matching) < min(max_events, 2) else batch.through <= max(upto, after)
        assert batch.through >= (got[-1].offset if got else upto)
        assert batch.gone_through == max((self.gone.get(name, 0) for name in (self.gone if names is None else names)), default=0)

    @rule(offset=st.integers(0, 60))
    def get(self, offset: int) -> None:
        found = [event for event in self.events if event.offset == offset]
        assert self.run(self.log.get(offset)) == (found[0] if found else None)

    @rule(names=subsets)
    def first(self, names: list[str] | None) -> None:
        offsets = [event.offset for event in self.events if names is None or event.topic in names]
        assert self.run(self.log.first(names)) == min(offsets, default=0)

    @rule(topic=topics)
    def drop(self, topic: str) -> None:
        dropped = [event for event in self.events if event.topic == topic]
        assert self.run(self.log.drop(topic)) == len(dropped)
        self.remove(dropped)
        self.known = {key: value for key, value in self.known.items() if key[0] != topic}

    @rule()
    def trim(self) -> None:
        excess = self.events[: max(0, len(self.events) - KEEP)]
        assert self.run(self.log.trim()) == len(excess)
        assert self.run(self.log.trim()) == 0
        self.remove(excess)

    @rule()
    def sweep(self) -> None:
        while self.run(self.log.sweep()):
            pass

    def remove(self, events: list[Stored]) -> None:
        for event in events:
            self.events.remove(event)
            self.gone[event.topic] = max(self.gone.get(event.topic, 0), event.offset)

    @rule()
    def reopen(self) -> None:
        self.run(self.log.close())
        self.open()

    @rule(several=st.lists(appends, min_size=1, max_size=4), at=st.integers(1, 40))
    def crash(self, several: list[tuple[str, list[str], str | None]], at: int) -> None:
        """Append, and continue with what a kill at some change of a file left."""
        self.run(self.log.close())
        self.lives += 1
        image, done, acknowledged = self.root / str(self.lives), dict[int, object](), list[int]()
        with disk(self.directory) as watched:
            self.open()
            fuse = Fuse(watched, image, at, lambda: acknowledged.extend(done))
            self.run(self.append_all(several, done))
            self.run(self.log.close())
            fuse.burn()
        self.directory = image
        self.open()
        there = self.log.last
        for number, one in enumerate(several):
            if self.last == there:
                assert number not in acknowledged or isinstance(done[number], KeyReused) or done[number].repeated  # type: ignore[attr-defined]
            else:
                self.take(*one)
        assert self.last == there

    @invariant()
    def everything_is_there(self) -> None:
        batch = self.run(self.log.read(0, self.log.last, max_events=10_000, max_bytes=10**9))
        assert list(batch.events) == self.events
        assert (self.log.last, self.log.epoch) == (self.last, self.epoch)
        for name in NAMES:
            events = [event for event in self.events if event.topic == name]
            topic = self.log.topics.get(name)
            known = (topic.count, topic.bytes, topic.last, topic.gone_through) if topic else (0, 0, 0, 0)
            size, last = sum(len(event.block) for event in events), events[-1].offset if events else 0
            assert known == (len(events), size, last, self.gone.get(name, 0))


class Fuse:
    """Takes one image of the disk, at the chosen change of a file."""

    def __init__(self, watched: Disk, image: Path, at: int, taken: Any) -> None:
        self._watched, self._image, self._left, self._taken = watched, image, at, taken
        watched.watcher = self._count

    def _count(self, change: str) -> None:
        self._left -= 1
        if self._left == 0:
            self.burn()

    def burn(self) -> None:
        """Take the image now, unless it was taken."""
        if not self._image.exists():
            self._taken()
            self._watched.image(self._image)


TestEventLogModel = EventLogModel.TestCase
TestEventLogModel.settings = settings(max_examples=25, stateful_step_count=25, suppress_health_check=list(HealthCheck), print_blob=True)
