"""When memory is given back to the system."""

import asyncio
from collections.abc import Iterable

import pytest

from gateway.fan_out.heap import Heap, trim

GUARD_SECONDS = 30.0


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
    monkeypatch.setattr("gateway.fan_out.heap._SECONDS", 0.0)


async def test_memory_is_given_back_once_when_a_crowd_has_left() -> None:
    trims = Trims()
    heap = Heap(trims)
    note_all(heap, range(1, 2001))
    note_all(heap, range(1999, -1, -1))
    async with asyncio.timeout(GUARD_SECONDS):
        await trims.happened.wait()
    assert trims.count == 1
    assert repr(heap) == "<Heap open=0 most=0>"


async def test_memory_is_given_back_when_the_last_of_a_crowd_have_left_and_not_before() -> None:
    trims = Trims()
    heap = Heap(trims)
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
    note_all(Heap(trims), counts)
    for _ in range(10):
        await asyncio.sleep(0.001)
    assert trims.count == 0


async def test_next_crowd_counts_from_those_who_stayed() -> None:
    trims = Trims()
    heap = Heap(trims)
    for _ in range(3):
        note_all(heap, [*range(10, 1000), *range(1000, 9, -1)])
        async with asyncio.timeout(GUARD_SECONDS):
            await trims.happened.wait()
        trims.happened.clear()
    assert trims.count == 3


def test_trimming_works_on_this_system() -> None:
    trim()
