"""One timer for all streams."""

import asyncio
import itertools
import time
from collections.abc import Callable

import pytest

from gateway.streams.wheel import TimerWheel
from tests.kit.waiting import GUARD_SECONDS

TICK_SECONDS = 0.02


class Entry:
    """Notes when it rang, and asks to be rung again as `again` says."""

    def __init__(self, again: Callable[[int], int] = lambda now: 0) -> None:
        self.slot = 0
        self.rung = asyncio.Event()
        self.rings: list[tuple[int, float]] = []
        self._again = again

    def fire(self, now: int) -> int:
        self.rings.append((now, time.monotonic()))
        self.rung.set()
        return self._again(now)


async def until_rung(entry: Entry, count: int = 1) -> None:
    async with asyncio.timeout(GUARD_SECONDS):
        while len(entry.rings) < count:
            entry.rung.clear()
            await entry.rung.wait()


def timers_waiting() -> int:
    """Return the number of the event loop's timers that are not cancelled."""
    loop = asyncio.get_running_loop()
    return sum(not handle.cancelled() for handle in loop._scheduled)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("seconds", "ticks"), [(0, 0), (0.001, 1), (0.25, 1), (0.26, 2), (0.5, 2), (15, 60), (15.1, 61)])
async def test_interval_takes_the_least_number_of_ticks_that_lasts_it(seconds: float, ticks: int) -> None:
    assert TimerWheel(0.25).ticks(seconds) == ticks


@pytest.mark.parametrize("ticks", [1, 2, 5])
async def test_entry_rings_once_when_due_and_not_a_tick_early(ticks: int) -> None:
    wheel = TimerWheel(TICK_SECONDS)
    entry = Entry()
    added_at = time.monotonic()
    wheel.add(entry, wheel.now)  # starts the wheel's clock
    wheel.remove(entry)
    wheel.add(entry, wheel.now + ticks)
    due = entry.slot
    await until_rung(entry)
    ((now, rung_at),) = entry.rings
    assert now >= due
    assert rung_at - added_at >= (ticks - 1) * TICK_SECONDS
    assert entry.slot == 0


async def test_entries_ring_in_the_order_in_which_they_are_due() -> None:
    wheel = TimerWheel(TICK_SECONDS)
    entries = {number: Entry() for number in (7, 2, 5)}
    wheel.add(entries[7], wheel.now)
    wheel.remove(entries[7])
    for number, entry in entries.items():
        wheel.add(entry, wheel.now + number)
    await until_rung(entries[7])
    rang_at = {number: entry.rings[0][1] for number, entry in entries.items()}
    assert sorted(rang_at, key=rang_at.__getitem__) == [2, 5, 7]


async def test_entry_that_is_late_to_be_added_rings_at_the_next_tick() -> None:
    wheel = TimerWheel(TICK_SECONDS)
    entry = Entry()
    wheel.add(entry, wheel.now - 100)
    assert entry.slot == wheel.now + 1
    await until_rung(entry)


async def test_entry_rings_again_as_often_as_it_asks() -> None:
    wheel = TimerWheel(TICK_SECONDS)
    entry = Entry(lambda now: now + 2 if len(entry.rings) < 4 else 0)
    wheel.add(entry, wheel.now)
    await until_rung(entry, 4)
    ticks = [now for now, _ in entry.rings]
    assert all(later - earlier >= 2 for earlier, later in itertools.pairwise(ticks))
    assert timers_waiting() == 0


async def test_removed_entry_does_not_ring() -> None:
    wheel = TimerWheel(TICK_SECONDS)
    removed, kept = Entry(), Entry()
    wheel.add(removed, wheel.now + 1)
    wheel.add(kept, wheel.now + 2)
    wheel.remove(removed)
    await until_rung(kept)
    assert removed.rings == []


async def test_entry_that_is_not_in_the_wheel_may_be_removed() -> None:
    wheel = TimerWheel(TICK_SECONDS)
    stranger, entry = Entry(), Entry()
    wheel.add(entry, wheel.now)
    wheel.remove(stranger)
    wheel.remove(entry)
    wheel.remove(entry)
    assert "waiting=0" in repr(wheel)


async def test_nothing_is_scheduled_for_an_empty_wheel() -> None:
    before = timers_waiting()
    wheel = TimerWheel(TICK_SECONDS)
    assert timers_waiting() == before
    entry = Entry()
    wheel.add(entry, wheel.now)
    assert timers_waiting() == before + 1
    await until_rung(entry)
    assert timers_waiting() == before


async def test_wheel_whose_last_entry_was_removed_comes_to_rest() -> None:
    wheel = TimerWheel(TICK_SECONDS)
    entry = Entry()
    wheel.add(entry, wheel.now + 1000)
    wheel.remove(entry)
    async with asyncio.timeout(GUARD_SECONDS):
        while timers_waiting() > 1:  # beside the guard's own
            await asyncio.sleep(0)
    assert entry.rings == []


async def test_wheel_that_has_rested_rings_not_early() -> None:
    wheel = TimerWheel(TICK_SECONDS)
    first, second = Entry(), Entry()
    wheel.add(first, wheel.now)
    await until_rung(first)
    await asyncio.sleep(5 * TICK_SECONDS)  # ticks that are not counted
    added_at = time.monotonic()
    wheel.add(second, wheel.now)  # what a stream does first: its clock reads right from here
    wheel.remove(second)
    wheel.add(second, wheel.now + 4)
    await until_rung(second)
    assert second.rings[0][1] - added_at >= 3 * TICK_SECONDS


async def test_ten_thousand_entries_take_one_timer_and_all_ring() -> None:
    wheel = TimerWheel(TICK_SECONDS)
    before = timers_waiting()
    entries = [Entry() for _ in range(10_000)]
    for number, entry in enumerate(entries):
        wheel.add(entry, wheel.now + 1 + number % 5)
    assert timers_waiting() == before + 1
    assert "waiting=10000" in repr(wheel)
    for entry in entries:
        await until_rung(entry)
    assert all(len(entry.rings) == 1 for entry in entries)
    assert timers_waiting() == before


async def test_no_call_is_lost_when_the_loop_was_busy_for_many_ticks() -> None:
    wheel = TimerWheel(TICK_SECONDS)
    entries = [Entry() for _ in range(10)]
    for number, entry in enumerate(entries):
        wheel.add(entry, wheel.now + 1 + number)
    time.sleep(12 * TICK_SECONDS)  # noqa: ASYNC251  the stall is the point
    for entry in entries:
        await until_rung(entry)


async def test_no_call_is_lost_when_one_takes_longer_than_a_tick() -> None:
    wheel = TimerWheel(TICK_SECONDS)

    def slow(now: int) -> int:
        if len(first.rings) > 1:
            return 0
        time.sleep(1.5 * TICK_SECONDS)  # holds the event loop up, as a slow callback would
        return now + 1

    first = Entry(slow)
    wheel.add(first, wheel.now)
    others = [Entry() for _ in range(6)]
    for number, other in enumerate(others):
        wheel.add(other, wheel.now + 2 + number)
    for other in others:
        await until_rung(other)


async def test_entry_that_another_removes_while_both_are_due_does_not_ring() -> None:
    wheel = TimerWheel(TICK_SECONDS)

    def remove_other(now: int) -> int:
        wheel.remove(second if first.rings else first)
        return 0

    first, second, last = Entry(remove_other), Entry(remove_other), Entry()
    wheel.add(first, wheel.now + 1)
    wheel.add(second, wheel.now + 1)
    wheel.add(last, wheel.now + 3)
    await until_rung(last)
    assert len(first.rings) + len(second.rings) == 1


async def test_failure_of_one_is_reported_and_the_others_ring() -> None:
    wheel = TimerWheel(TICK_SECONDS)
    reports: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, report: reports.append(report))

    def fail(now: int) -> int:
        raise RuntimeError("broken")

    broken = [Entry(fail) for _ in range(3)]
    last = Entry()
    for entry in broken:
        wheel.add(entry, wheel.now + 1)
    wheel.add(last, wheel.now + 2)
    await until_rung(last)
    assert all(entry.rings for entry in broken)
    assert [str(report["exception"]) for report in reports] == ["broken"] * 3


async def test_wheel_turns_as_seldom_as_its_stride_says() -> None:
    wheel = TimerWheel(0.001, 64)
    entries = [Entry() for _ in range(8)]
    for number, entry in enumerate(entries):
        wheel.add(entry, 65 + number * 4)
    for entry in entries:
        await until_rung(entry)
    assert len({now for entry in entries for now, _ in entry.rings}) == 1, "all fire in the same turn"
    assert all(now >= 128 for entry in entries for now, _ in entry.rings)


async def test_wheel_that_must_turn_more_often_does_so_at_once_and_loses_no_call() -> None:
    wheel = TimerWheel(0.001, 1024)
    early, late = Entry(), Entry()
    wheel.add(early, wheel.now + 300)
    wheel.turn_within(0.02)
    loop = asyncio.get_running_loop()
    [due] = [handle.when() for handle in loop._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]
    assert due - loop.time() <= 0.02, "its next turn is not that of before, which would come in a second"
    wheel.add(late, wheel.now + 20)
    await until_rung(late)
    await until_rung(early)
    assert early.rings[0][0] >= 1024
    assert timers_waiting() == 0


async def test_wheel_does_not_turn_less_often_again() -> None:
    wheel = TimerWheel(0.001, 1024)
    wheel.turn_within(0.001)
    wheel.turn_within(60)
    entry = Entry()
    wheel.add(entry, wheel.now + 5)
    assert entry.slot == wheel.now + 5


@pytest.mark.parametrize("milliseconds", [1, 7, 9, 100, 300, 700, 900, 1001, 15_000])
async def test_interval_in_whole_ticks_takes_no_tick_more(milliseconds: int) -> None:
    assert TimerWheel(0.001).ticks(milliseconds / 1000) == milliseconds
