"""The newest blocks of a stream: what is kept, for how long, and where it is found."""

import itertools
from collections.abc import Iterator

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.streams.history import READ_BYTES, History, Limits

PLENTY = Limits(blocks=1_000_000, bytes=1 << 30, age_seconds=1e9)


class Clock:
    """Seconds that a test counts."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def history_of(*blocks: bytes, limits: Limits = PLENTY, clock: Clock | None = None) -> History:
    history = History(limits, clock=clock or Clock())
    for block in blocks:
        history.append(block)
    return history


def read_all(history: History, cursor: int) -> Iterator[bytes]:
    while cursor < history.end:
        data, after = history.read(cursor, history.end)
        assert cursor < after <= history.end
        cursor = after
        yield data


def test_new_history_begins_at_cursor_zero_and_has_nothing() -> None:
    history = history_of()
    assert (history.first, history.end, history.end_bytes, history.cost, history.full) == (0, 0, 0, 0, False)
    assert history.find("1") is None
    assert history.first_id() is None
    assert history.position(0) == 0
    history.trim(0)
    assert not history.drop_oldest(0)


def test_cursor_after_an_event_is_found_by_its_id() -> None:
    history = history_of()
    for number in range(5):
        history.append(b"data\n\n", f"n{number}")
        history.append(b":\n\n")
    assert [history.find(f"n{number}") for number in range(5)] == [1, 3, 5, 7, 9]
    assert history.find("n5") is None
    assert history.first_id() == "n0"


def test_id_that_comes_again_means_its_newest_place() -> None:
    history = history_of()
    for id in ("a", "b", "a"):
        history.append(b"data\n\n", id)
    assert history.find("a") == 3
    assert history.find("b") == 2


def test_id_that_comes_again_in_a_later_part_of_the_history_means_its_newest_place() -> None:
    history = history_of()
    for number in range(5000):
        history.append(b"data\n\n", f"{number % 1500}")
    assert [history.find(str(number)) for number in (0, 499, 500, 1499)] == [4501, 5000, 3501, 4500]


def test_id_is_found_while_the_next_block_is_kept() -> None:
    history = history_of(limits=Limits(blocks=3, bytes=1 << 30, age_seconds=1e9))
    for number in range(10):
        history.append(b"data\n\n", str(number))
    history.trim(history.end)
    assert (history.first, history.end) == (7, 10)
    assert [history.find(str(number)) for number in (5, 6, 7, 9)] == [None, 7, 8, 10]
    assert history.first_id() == "7"


def test_history_can_begin_after_an_event_that_it_never_had() -> None:
    history = history_of(limits=Limits(blocks=1, bytes=1 << 30, age_seconds=1e9))
    history.begins_after("asked")
    assert history.find("asked") == 0
    history.append(b"1\n\n", "1")
    assert history.find("asked") == 0
    history.append(b"2\n\n", "2")
    history.trim(history.end)
    assert history.find("asked") is None
    assert history.find("1") == 1


def test_equal_reads_in_a_row_give_the_same_object() -> None:
    history = history_of(*(b"%d\n\n" % number for number in range(10)))
    first, _ = history.read(2, 10)
    second, _ = history.read(2, 10)
    assert first is second
    history.append(b"10\n\n")
    assert history.read(2, 10)[0] is first
    assert history.read(2, 11)[0] == first + b"10\n\n"


def test_block_that_is_read_alone_is_the_one_that_was_appended() -> None:
    block = b"data: once\n\n"
    history = history_of(b"1\n\n", block)
    assert history.read(1, 2)[0] is block
    assert history.block(2) is block


def test_whole_segment_is_one_object_for_all_readers() -> None:
    """Ten thousand who catch up do not copy it ten thousand times."""
    history = history_of(*(b"x" * 1000 + b"\n\n" for _ in range(100)))
    data, after = history.read(0, history.end)
    other, _ = history.read(after, history.end)
    assert other != b""
    assert history.read(0, history.end)[0] is data


def test_read_gives_about_as_much_as_a_read_may_and_a_larger_block_whole() -> None:
    large = b"y" * (3 * READ_BYTES) + b"\n\n"
    blocks = [b"x" * 500 + b"\n\n"] * 200 + [large] + [b"z\n\n"] * 3000
    history = history_of(*blocks)
    parts = list(read_all(history, 0))
    assert b"".join(parts) == b"".join(blocks)
    assert large in parts
    assert all(len(part) <= READ_BYTES for part in parts if part != large)


def test_read_does_not_go_beyond_the_cursor_that_is_asked_for() -> None:
    history = history_of(*(b"%d\n\n" % number for number in range(5000)))
    for cursor, upto in ((0, 1), (0, 3), (1020, 1030), (1024, 1025), (4998, 4999)):
        data, after = history.read(cursor, upto)
        assert after <= upto
        assert data == b"".join(b"%d\n\n" % number for number in range(cursor, after))


@pytest.mark.parametrize("count", [10, 1023, 1024, 1025, 5000])
def test_number_of_blocks_is_limited(count: int) -> None:
    history = history_of(*(b"%d\n\n" % number for number in range(count)), limits=Limits(1000, 1 << 30, 1e9))
    assert history.full == (count > 1000)
    history.trim(history.end)
    assert history.first == max(0, count - 1000)
    assert not history.full
    assert b"".join(read_all(history, history.first)) == b"".join(b"%d\n\n" % number for number in range(history.first, count))


def test_bytes_are_limited_and_counted_back_when_forgotten() -> None:
    limits = Limits(1_000_000, 400_000, 1e9)
    history = History(limits, clock=Clock())
    for number in range(10_000):
        history.append(b"x" * 100 + b"\n\n", str(number))
        if history.full:
            history.trim(history.end)
        assert history.cost <= limits.bytes
    kept = history.end - history.first
    assert kept * 100 <= history.cost
    assert history.cost > limits.bytes * 0.7, "it forgets more than it must"
    assert kept > 1000


def test_index_by_id_counts_as_well() -> None:
    with_ids, without = history_of(), history_of()
    for number in range(100):
        with_ids.append(b"1\n\n", str(number))
        without.append(b"1\n\n")
    assert with_ids.cost > without.cost + 100 * 100


def test_block_larger_than_all_that_may_be_kept_is_kept_alone() -> None:
    history = history_of(limits=Limits(1000, 10_000, 1e9))
    history.append(b"1\n\n", "1")
    history.append(b"x" * 20_000 + b"\n\n", "2")
    history.trim(history.end)
    assert (history.first, history.end) == (1, 2)
    assert history.find("1") == 1
    assert len(history.read(1, 2)[0]) == 20_002
    history.append(b"3\n\n", "3")
    history.trim(history.end)
    assert (history.first, history.find("2")) == (2, 2)
    assert history.cost < 10_000


def test_blocks_are_forgotten_when_they_are_too_old() -> None:
    clock = Clock()
    history = history_of(limits=Limits(1_000_000, 1 << 30, 60.0), clock=clock)
    history.append(b"0", "0")
    history.append(b"1\n\n", "1")
    clock.now += 59
    history.trim(history.end)
    assert history.first == 0
    clock.now += 20
    history.trim(history.end)
    assert (history.first, history.end, history.cost) == (2, 2, 0)
    assert history.find("0") is None
    assert history.position(2) == history.end_bytes == 4
    history.append(b"2\n\n", "2")
    assert history.read(2, 3) == (b"2\n\n", 3)
    assert history.find("2") == 3


def test_client_with_the_newest_event_resumes_without_a_gap_after_it_is_dropped() -> None:
    clock = Clock()
    history = history_of(limits=Limits(1_000_000, 1 << 30, 60.0), clock=clock)
    history.append(b"1\n\n", "1")
    clock.now += 100
    history.trim(history.end)
    assert history.first == history.end == 1
    assert history.find("1") == 1
    history.append(b"2\n\n", "2")
    assert history.read(1, 2) == (b"2\n\n", 2)
    clock.now += 100
    history.trim(history.end)
    assert history.find("1") is None
    assert history.find("2") == 2


@pytest.mark.parametrize("every", [0.1, 1.0, 10.0, 50.0, 120.0])
def test_age_is_kept_also_while_blocks_come_slowly(every: float) -> None:
    """A block goes when its own time is over, not when those that came after it are old as well."""
    clock = Clock()
    history = history_of(limits=Limits(1_000_000, 1 << 30, 60.0), clock=clock)
    times: list[float] = []
    for _ in range(int(300 / every) + 5):
        times.append(clock.now)
        history.append(b"1\n\n")
        clock.now += every
        history.trim(history.end)
        ages = [clock.now - time for time in times[history.first :]]
        assert max(ages, default=0) <= 60 * 1.2
        assert all(clock.now - time > 60 for time in times[: history.first])


def test_blocks_that_a_subscriber_needs_are_not_dropped() -> None:
    clock = Clock()
    history = history_of(*(b"%d\n\n" % number for number in range(3000)), limits=Limits(10, 100, 1.0), clock=clock)
    clock.now += 100
    history.trim(1500)
    assert history.first == 1500
    assert b"".join(read_all(history, 1500)) == b"".join(b"%d\n\n" % number for number in range(1500, 3000))
    history.trim(3000)
    assert history.first == 3000


def test_oldest_part_can_be_dropped_until_none_is_left() -> None:
    history = history_of(*(b"x" * 998 + b"\n\n" for _ in range(100)))
    costs = [history.cost]
    while history.drop_oldest(history.end):
        costs.append(history.cost)
    assert costs == sorted(costs, reverse=True)
    assert len(costs) > 2
    assert (history.first, history.cost) == (history.end, 0)
    assert history.cost == (history.end - history.first) * 1000


def test_oldest_part_is_not_dropped_while_it_is_needed() -> None:
    history = history_of(*(b"x" * 998 + b"\n\n" for _ in range(100)))
    assert not history.drop_oldest(3)
    assert history.first == 0
    assert history.drop_oldest(50)
    assert 0 < history.first <= 50


BLOCKS = st.one_of(
    st.binary(min_size=1, max_size=20),
    st.integers(1, 12_000).map(lambda size: b"x" * size),
    st.just(b"y" * (READ_BYTES + 1)),
)


class HistoryModel(RuleBasedStateMachine):
    """A history beside a list that forgets nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.blocks: list[bytes] = []
        self.times: list[float] = []
        self.places: dict[str, int] = {}

    @initialize(blocks=st.integers(1, 3000), size=st.sampled_from([1, 5_000, 100_000, 1_000_000]), age=st.sampled_from([0.5, 10.0, 1e9]))
    def begin(self, blocks: int, size: int, age: float) -> None:
        self.limits = Limits(blocks, size, age)
        self.history = History(self.limits, clock=self.clock)

    @rule(block=BLOCKS, id=st.one_of(st.none(), st.integers(0, 30).map(str)))
    def append(self, block: bytes, id: str | None) -> None:
        self._append(block, id)

    @rule(count=st.sampled_from([10, 1000, 1100]), block=st.binary(min_size=1, max_size=40), with_ids=st.booleans())
    def append_many(self, count: int, block: bytes, with_ids: bool) -> None:
        for number in range(count):
            self._append(block, f"many {number}" if with_ids else None)

    def _append(self, block: bytes, id: str | None) -> None:
        self.history.append(block, id)
        self.blocks.append(block)
        self.times.append(self.clock.now)
        if id is not None:
            self.places[id] = len(self.blocks)

    @rule(seconds=st.sampled_from([0.1, 0.4, 3.0, 100.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(data=st.data())
    def trim(self, data: st.DataObject) -> None:
        history, limits = self.history, self.limits
        before = history.first
        keep = data.draw(st.one_of(st.just(history.end), st.integers(before, history.end)))
        oldest = self.times[before] if before < history.end else self.clock.now
        needless = not history.full and self.clock.now - oldest <= limits.age_seconds
        history.trim(keep)
        assert before <= history.first <= max(before, keep)
        if needless:
            assert history.first == before
        if keep == history.end:
            assert history.end - history.first <= limits.blocks
            assert history.cost <= limits.bytes or history.end - history.first == 1
            if history.first < history.end:
                assert self.clock.now - self.times[history.first] <= limits.age_seconds * 1.2

    @rule(data=st.data())
    def drop_oldest(self, data: st.DataObject) -> None:
        before, cost = self.history.first, self.history.cost
        keep = data.draw(st.integers(before, self.history.end))
        if self.history.drop_oldest(keep):
            assert before < self.history.first <= keep
            assert self.history.cost < cost
        else:
            assert (self.history.first, self.history.cost) == (before, cost)

    @precondition(lambda self: self.history.first < self.history.end)
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        history = self.history
        cursor = data.draw(st.integers(history.first, history.end - 1))
        upto = data.draw(st.integers(cursor + 1, history.end))
        got, after = history.read(cursor, upto)
        assert cursor < after <= upto
        assert got == b"".join(self.blocks[cursor:after])
        assert after == cursor + 1 or len(got) <= READ_BYTES
        assert history.read(cursor, upto)[0] is got
        assert history.block(after) == self.blocks[after - 1]

    @rule(id=st.one_of(st.integers(0, 31).map(str), st.integers(0, 1100).map("many {}".format)))
    def find(self, id: str) -> None:
        place = self.places.get(id)
        assert self.history.find(id) == (place if place is not None and place >= self.history.first else None)

    @invariant()
    def agrees(self) -> None:
        history = self.history
        assert history.end == len(self.blocks)
        assert history.end_bytes == sum(map(len, self.blocks))
        assert 0 <= history.first <= history.end
        assert history.full == (history.end - history.first > self.limits.blocks or history.cost > self.limits.bytes)
        assert history.cost >= sum(map(len, self.blocks[history.first :]))

    @rule()
    def read_everything(self) -> None:
        history = self.history
        assert b"".join(read_all(history, history.first)) == b"".join(self.blocks[history.first :])
        starts = list(itertools.accumulate(map(len, self.blocks), initial=0))
        for cursor in (*range(history.first, history.end + 1, 100), history.end):
            assert history.position(cursor) == starts[cursor]
        kept = [id for id, place in self.places.items() if place > history.first]
        assert (history.first_id() is None) == (not kept)


HistoryModel.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
test_history_agrees_with_a_list = HistoryModel.TestCase
