"""How the embedded event log reads: by seeks, without sorting, for every kind of request."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from producer.log.retention import Retention
from producer.log.sqlite_group import Entry, Group
from producer.log.sqlite_reader import Reader
from producer.log.sqlite_removal import drop, trim
from producer.log.sqlite_store import Store


def fill(store: Store, topics: int, events: int) -> None:
    entries = [Entry(f"t{number % topics}", [f"data: {number}\n\n".encode()], None) for number in range(events)]
    Group(store, entries, key_seconds=1).commit()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path, always=False)
    yield store
    store.close()


@pytest.fixture
def reader(store: Store) -> Iterator[Reader]:
    reader = Reader(store.path, store.names)
    yield reader
    reader.close()


def names(count: int) -> frozenset[str]:
    return frozenset(f"t{number}" for number in range(count))


@pytest.mark.parametrize(
    "ask",
    [
        lambda reader: reader.read(500, 900, None, 100, 10_000),
        lambda reader: reader.read(500, 900, names(1), 100, 10_000),
        lambda reader: reader.read(500, 900, names(3), 100, 10_000),
        lambda reader: reader.read(500, 900, names(64), 100, 10_000),
        lambda reader: reader.read(500, 900, names(65), 100, 10_000),
        lambda reader: reader.get(500),
        lambda reader: reader.first(None),
        lambda reader: reader.first(names(100)),
        lambda reader: reader.offset_before(5, 1000),
    ],
    ids=["all", "1 topic", "3 topics", "64 topics", "65 topics", "get", "first of all", "first of topics", "offset before"],
)
def test_events_are_found_by_seeks_and_never_sorted(store: Store, reader: Reader, ask: Callable[[Reader], object]) -> None:
    fill(store, 100, 1000)
    statements: list[str] = []
    reader._connection.set_trace_callback(statements.append)
    ask(reader)
    reader._connection.set_trace_callback(None)
    queries = [statement for statement in statements if statement.startswith("SELECT")]
    assert queries
    for query in queries:
        plan = "\n".join(row[3] for row in reader._connection.execute(f"EXPLAIN QUERY PLAN {query}"))
        assert "B-TREE FOR ORDER BY" not in plan, f"{query}\n{plan}"
        assert "SCAN events" not in plan, f"{query}\n{plan}"


def test_topics_of_a_large_set_are_looked_up_again_when_something_changed(store: Store, reader: Reader) -> None:
    fill(store, 100, 1000)
    asked = names(200)
    assert len(reader.read(0, 10_000, asked, 10_000, 10**9).events) == 1000
    fill(store, 200, 200)
    assert len(reader.read(0, 10_000, asked, 10_000, 10**9).events) == 1200
    drop(store, "t150")
    batch = reader.read(0, 10_000, asked, 10_000, 10**9)
    assert (len(batch.events), batch.gone_through) == (1199, 1151)
    assert trim(store, Retention(max_events=store.count - 10)).removed == 10
    assert [event.offset for event in reader.read(0, 10_000, asked, 10_000, 10**9).events][:1] == [11]
    assert reader.read(0, 10_000, names(100), 10_000, 10**9).gone_through == 10
    fill(store, 1, 1)
    drop(store, "t0")
    assert reader.read(0, 10_000, names(100), 10_000, 10**9).gone_through == 1201


def test_sparse_topics_of_a_large_set_are_found_beyond_any_distance(store: Store, reader: Reader) -> None:
    for number in range(70):
        fill_one(store, f"t{number}")
    for _ in range(4):
        Group(store, [Entry("other", [b"data: x\n\n"] * 3000, None)], key_seconds=1).commit()
    fill_one(store, "t69")
    asked = names(70) - {"t0"}
    batch = reader.read(70, 100_000, asked, 100, 10_000)
    assert [event.topic for event in batch.events] == ["t69"]
    assert batch.through == 100_000
    assert reader.read(70, store.next - 2, asked, 100, 10_000).events == []


def fill_one(store: Store, topic: str) -> None:
    Group(store, [Entry(topic, [b"data: x\n\n"], None)], key_seconds=1).commit()
