"""When memory is given back to the system."""

from collections.abc import Iterable

import pytest

from gateway.server.heap import Heap, trim, unused_bytes
from tests.kit.clock import Clock

LEAVING_SECONDS = 1.0
LOOK_SECONDS = 10.0
MIB = 2**20


@pytest.fixture
async def clock() -> Clock:
    return Clock()


class Memory:
    """The memory that the allocator keeps, and how often it was told to give it back."""

    def __init__(self, mib: int = 0) -> None:
        self.mib = mib
        self.looks = self.trims = 0

    def look(self) -> int:
        self.looks += 1
        return self.mib * MIB

    def trim(self) -> None:
        self.trims += 1
        self.mib = 20


def note_all(heap: Heap, counts: Iterable[int]) -> None:
    for count in counts:
        heap.note_open(count)


async def test_memory_is_given_back_once_when_a_crowd_has_left(clock: Clock) -> None:
    memory = Memory()
    heap = Heap(memory.trim, lambda: 0)
    note_all(heap, [*range(1, 2001), *range(1999, -1, -1)])
    for _ in range(3):
        await clock.advance(LEAVING_SECONDS)
    assert memory.trims == 1


async def test_memory_is_given_back_when_the_last_of_a_crowd_have_left_and_not_before(clock: Clock) -> None:
    memory = Memory()
    heap = Heap(memory.trim, lambda: 0)
    note_all(heap, [*range(1, 2001), *range(1999, 900, -1)])
    for count in range(900, -1, -100):
        heap.note_open(count)
        await clock.advance(LEAVING_SECONDS)
    assert memory.trims == 0
    await clock.advance(LEAVING_SECONDS)
    assert memory.trims == 1


@pytest.mark.parametrize(
    "counts",
    [
        pytest.param([*range(1, 400), *range(400, -1, -1)], id="few"),
        pytest.param([*range(1, 5001), *range(5000, 2600, -1)], id="less than half"),
        pytest.param([1, 0] * 5000, id="many one after the other"),
    ],
)
async def test_memory_is_kept_while_it_will_be_needed_again(clock: Clock, counts: list[int]) -> None:
    memory = Memory()
    note_all(Heap(memory.trim, lambda: 0), counts)
    for _ in range(10):
        await clock.advance(LEAVING_SECONDS)
    assert memory.trims == 0


async def test_next_crowd_counts_from_the_remaining_streams(clock: Clock) -> None:
    memory = Memory()
    heap = Heap(memory.trim, lambda: 0)
    for trims in range(1, 4):
        note_all(heap, [*range(10, 1000), *range(1000, 9, -1)])
        for _ in range(2):  # the first second had some that left in it
            await clock.advance(LEAVING_SECONDS)
        assert memory.trims == trims


async def test_memory_that_few_requests_have_left_is_given_back_once(clock: Clock) -> None:
    memory = Memory(20)
    heap = Heap(memory.trim, memory.look, memory.trim)
    memory.mib = 60
    heap.note_open(1)
    await clock.advance(LOOK_SECONDS)
    assert (memory.trims, memory.mib) == (1, 20)


async def test_memory_is_looked_at_once_more_after_the_last_request_and_then_no_more(clock: Clock) -> None:
    memory = Memory(20)
    heap = Heap(memory.trim, memory.look, memory.trim)
    for _ in range(100):
        heap.note_open(1)
    await clock.advance(LOOK_SECONDS)
    heap.note_open(0)
    memory.mib = 100  # freed behind the last request
    for _ in range(5):  # the look, and the pause that follows a trim
        await clock.advance(LOOK_SECONDS)
    looks = memory.looks
    await clock.advance(10 * LOOK_SECONDS)
    assert (memory.looks, memory.trims) == (looks, 1)


async def test_memory_is_given_back_only_now_and_then_while_clients_come_and_go(clock: Clock) -> None:
    memory = Memory(20)
    heap = Heap(memory.trim, memory.look, memory.trim)
    trims = []
    for _ in range(9):
        memory.mib = 60
        heap.note_open(1)
        await clock.advance(LOOK_SECONDS)
        trims.append(memory.trims)
    assert trims == [1, 1, 1, 1, 2, 2, 2, 2, 3], "the first trim comes after one look, each other after four"


async def test_little_memory_is_kept_for_the_next_requests(clock: Clock) -> None:
    memory = Memory(20)
    heap = Heap(memory.trim, memory.look, memory.trim)
    for mib in (30, 36, 10, 26):
        memory.mib = mib
        heap.note_open(1)
        await clock.advance(LOOK_SECONDS)
    assert memory.trims == 0
    memory.mib = 27  # 17 more than the least
    heap.note_open(1)
    await clock.advance(LOOK_SECONDS)
    assert memory.trims == 1


async def test_memory_that_cannot_be_freed_is_not_collected_again_and_again(clock: Clock) -> None:
    memory, trims = Memory(20), Memory()
    heap = Heap(trims.trim, memory.look, trims.trim)
    memory.mib = 80
    for _ in range(10):
        heap.note_open(1)
        await clock.advance(LOOK_SECONDS)
    assert trims.trims == 1


def test_trimming_gives_unused_memory_back_on_this_system() -> None:
    trim()
    before = unused_bytes()
    pieces = [bytes(100_000) for _ in range(800)]
    kept = pieces[::100]  # or the allocator would give back all of it by itself
    del pieces
    assert before > 0
    after = unused_bytes()
    trim()
    assert unused_bytes() <= after
    assert unused_bytes() - before < 8 * MIB
    assert len(kept) == 8
