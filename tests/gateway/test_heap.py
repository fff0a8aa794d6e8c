"""When memory is given back to the system."""

import asyncio
from collections.abc import Iterable

import pytest

from gateway.server.heap import Heap, trim, unused_bytes

GUARD_SECONDS = 30.0


MIB = 2**20


class Memory:
    """What the allocator keeps, and how often it was told to give it back."""

    def __init__(self, mib: int) -> None:
        self.mib = mib
        self.looks = self.trims = 0
        self.looked = asyncio.Event()

    def look(self) -> int:
        self.looks += 1
        self.looked.set()
        return self.mib * MIB

    def trim(self) -> None:
        self.trims += 1
        self.mib = 20

    async def after_look(self) -> None:
        self.looked.clear()
        async with asyncio.timeout(GUARD_SECONDS):
            await self.looked.wait()
        await asyncio.sleep(0)


class Trims:
    """Counts them."""

    def __init__(self) -> None:
        self.count = 0
        self.happened = asyncio.Event()

    def __call__(self) -> None:
        self.count += 1
        self.happened.set()


def note_all(heap: Heap, counts: Iterable[int]) -> None:
    for count in counts:
        heap.note_open(count)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.server.heap._SECONDS", 0.0)
    monkeypatch.setattr("gateway.server.heap._LOOK_SECONDS", 0.001)


async def test_memory_is_given_back_once_when_a_crowd_has_left() -> None:
    trims = Trims()
    heap = Heap(trims, lambda: 0)
    note_all(heap, range(1, 2001))
    note_all(heap, range(1999, -1, -1))
    async with asyncio.timeout(GUARD_SECONDS):
        await trims.happened.wait()
    assert trims.count == 1
    assert repr(heap) == "<Heap open=0 most=0>"


async def test_memory_is_given_back_when_the_last_of_a_crowd_have_left_and_not_before() -> None:
    trims = Trims()
    heap = Heap(trims, lambda: 0)
    note_all(heap, [*range(1, 2001), *range(1999, 900, -1)])
    for count in range(900, -1, -10):
        heap.note_open(count)
        await asyncio.sleep(0)
    assert trims.count == 0
    async with asyncio.timeout(GUARD_SECONDS):
        await trims.happened.wait()
    assert trims.count == 1


@pytest.mark.parametrize(
    "counts",
    [
        pytest.param([*range(1, 400), *range(400, -1, -1)], id="few"),
        pytest.param([*range(1, 5001), *range(5000, 2600, -1)], id="less than half"),
        pytest.param([1, 0] * 5000, id="many one after the other"),
    ],
)
async def test_memory_is_kept_while_it_will_be_needed_again(counts: list[int]) -> None:
    trims = Trims()
    note_all(Heap(trims, lambda: 0), counts)
    for _ in range(10):
        await asyncio.sleep(0.001)
    assert trims.count == 0


async def test_next_crowd_counts_from_those_who_stayed() -> None:
    trims = Trims()
    heap = Heap(trims, lambda: 0)
    for _ in range(3):
        note_all(heap, [*range(10, 1000), *range(1000, 9, -1)])
        async with asyncio.timeout(GUARD_SECONDS):
            await trims.happened.wait()
        trims.happened.clear()
    assert trims.count == 3


async def test_memory_that_few_requests_have_left_is_given_back_once() -> None:
    memory = Memory(20)
    heap = Heap(memory.trim, memory.look, memory.trim)
    memory.mib = 60
    heap.note_open(1)
    await memory.after_look()
    assert (memory.trims, memory.mib) == (1, 20)


async def test_memory_is_looked_at_once_more_after_the_last_request_and_then_no_more() -> None:
    memory = Memory(20)
    heap = Heap(memory.trim, memory.look, memory.trim)
    for _ in range(100):
        heap.note_open(1)
    await memory.after_look()
    memory.mib = 100  # freed behind the last request
    await memory.after_look()
    assert memory.trims == 1
    await memory.after_look()  # behind the pause that follows
    looks = memory.looks
    await asyncio.sleep(0.05)
    assert (memory.looks, memory.trims) == (looks, 1)


async def test_memory_is_given_back_only_now_and_then_while_clients_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.server.heap._LOOK_SECONDS", 0.02)
    memory = Memory(20)
    heap = Heap(memory.trim, memory.look, memory.trim)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    for trims in range(1, 4):
        memory.mib = 60
        heap.note_open(1)
        await memory.after_look()
        assert memory.trims == trims
    assert loop.time() - begun > 9 * 0.02, "the first trim comes after one pause, each other after four"


async def test_little_memory_is_kept_for_the_next_requests() -> None:
    memory = Memory(20)
    heap = Heap(memory.trim, memory.look, memory.trim)
    for mib in (30, 36, 10, 26):
        memory.mib = mib
        heap.note_open(1)
        await memory.after_look()
    assert memory.trims == 0
    memory.mib = 27  # 17 more than the least
    heap.note_open(1)
    await memory.after_look()
    assert memory.trims == 1


async def test_what_cannot_be_given_back_is_not_asked_for_again_and_again() -> None:
    memory = Memory(20)
    trims = Trims()
    heap = Heap(trims, memory.look, trims)
    memory.mib = 80
    for _ in range(10):
        heap.note_open(1)
        await memory.after_look()
    assert trims.count == 1


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
