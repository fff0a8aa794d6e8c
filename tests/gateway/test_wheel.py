"""One timer for all streams."""

import asyncio
from collections.abc import Callable

import pytest

from gateway.streams.wheel import TimerWheel
from tests.kit.clock import TICK_SECONDS, Clock


class Entry:
    """Notes the ticks at which it rang, and asks to be rung again as `again` says."""

    def __init__(self, again: Callable[[int], int] = lambda now: 0) -> None:
        self.slot = 0
        self.rings: list[int] = []
        self._again = again

    def fire(self, now: int) -> int:
        self.rings.append(now)
        return self._again(now)


@pytest.fixture
async def clock() -> Clock:
    return Clock()


def timers_waiting() -> int:
    """Return the number of the event loop's timers that are not cancelled."""
    loop = asyncio.get_running_loop()
    return sum(not handle.cancelled() for handle in loop._scheduled)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("seconds", "ticks"), [(0, 0), (0.001, 1), (0.25, 1), (0.26, 2), (0.5, 2), (15, 60), (15.1, 61)])
async def test_interval_takes_the_least_number_of_ticks_that_lasts_it(seconds: float, ticks: int) -> None:
    assert TimerWheel(0.25).ticks(seconds) == ticks


@pytest.mark.parametrize("ticks", [1, 2, 5])
async def test_entry_rings_once_when_due_and_not_a_tick_early(clock: Clock, ticks: int) -> None:
    wheel = TimerWheel(TICK_SECONDS)
    entry = Entry()
    wheel.add(entry, due := wheel.now + ticks)
    await clock.turn(ticks - 1)
    assert entry.rings == []
    await clock.turn(3)
    assert entry.rings == [due]
    assert entry.slot == 0


async def test_entries_ring_in_the_order_in_which_they_are_due(clock: Clock) -> None:
    wheel = TimerWheel(TICK_SECONDS)
    rang: list[int] = []
    for number in (7, 2, 5):
        wheel.add(Entry(lambda now, number=number: rang.append(number) or 0), wheel.now + number)  # type: ignore[misc]
    await clock.advance(7 * TICK_SECONDS)
    assert rang == [2, 5, 7]


async def test_entry_that_is_late_to_be_added_rings_at_the_next_tick(clock: Clock) -> None:
    wheel = TimerWheel(TICK_SECONDS)
    entry = Entry()
    wheel.add(entry, wheel.now - 100)
    await clock.turn()
    assert entry.rings == [wheel.now]


async def test_entry_rings_again_as_often_as_it_asks(clock: Clock) -> None:
    wheel = TimerWheel(TICK_SECONDS)
    entry = Entry(lambda now: now + 2 if len(entry.rings) < 4 else 0)
    wheel.add(entry, first := wheel.now + 1)
    await clock.turn(20)
    assert entry.rings == [first, first + 2, first + 4, first + 6]
    assert timers_waiting() == 0


async def test_removed_entry_does_not_ring(clock: Clock) -> None:
    wheel = TimerWheel(TICK_SECONDS)
    removed, kept = Entry(), Entry()
    wheel.add(removed, wheel.now + 1)
    wheel.add(kept, wheel.now + 2)
    wheel.remove(removed)
    await clock.turn(2)
    assert (len(removed.rings), len(kept.rings)) == (0, 1)


async def test_entry_that_is_not_in_the_wheel_may_be_removed() -> None:
    wheel = TimerWheel(TICK_SECONDS)
    stranger, entry = Entry(), Entry()
    wheel.add(entry, wheel.now)
    wheel.remove(stranger)
    wheel.remove(entry)
    wheel.remove(entry)
    assert "waiting=0" in repr(wheel)


async def test_nothing_is_scheduled_for_an_empty_wheel(clock: Clock) -> None:
    wheel = TimerWheel(TICK_SECONDS)
    assert timers_waiting() == 0
    wheel.add(Entry(), wheel.now)
    assert timers_waiting() == 1
    await clock.turn()
    assert timers_waiting() == 0


async def test_wheel_whose_last_entry_was_removed_comes_to_rest(clock: Clock) -> None:
    wheel = TimerWheel(TICK_SECONDS)
    entry = Entry()
    wheel.add(entry, wheel.now + 1000)
    wheel.remove(entry)
    await clock.turn()
    assert timers_waiting() == 0
    await clock.turn(1000)
    assert entry.rings == []


async def test_wheel_that_has_rested_rings_not_early(clock: Clock) -> None:
    wheel = TimerWheel(TICK_SECONDS)
    first, second = Entry(), Entry()
    wheel.add(first, wheel.now)
    await clock.turn(6)  # all but the first are not counted
    wheel.add(second, wheel.now)  # what a stream does first: its clock reads right from here
    wheel.remove(second)
    wheel.add(second, wheel.now + 4)
    await clock.turn(3)
    assert second.rings == []
    await clock.turn()
    assert len(second.rings) == 1


async def test_ten_thousand_entries_take_one_timer_and_all_ring(clock: Clock) -> None:
    wheel = TimerWheel(TICK_SECONDS)
    entries = [Entry() for _ in range(10_000)]
    for number, entry in enumerate(entries):
        wheel.add(entry, wheel.now + 1 + number % 5)
    assert timers_waiting() == 1
    assert "waiting=10000" in repr(wheel)
    await clock.turn(5)
    assert all(len(entry.rings) == 1 for entry in entries)
    assert timers_waiting() == 0


async def test_no_call_is_lost_when_the_loop_was_busy_for_many_ticks(clock: Clock) -> None:
    wheel = TimerWheel(TICK_SECONDS)
    entries = [Entry() for _ in range(10)]
    for number, entry in enumerate(entries):
        wheel.add(entry, wheel.now + 1 + number)
    await clock.advance(12 * TICK_SECONDS)
    assert [len(entry.rings) for entry in entries] == [1] * 10


async def test_no_call_is_lost_when_one_takes_longer_than_a_tick(clock: Clock) -> None:
    wheel = TimerWheel(TICK_SECONDS)

    def slow(now: int) -> int:
        clock.busy(1.5 * TICK_SECONDS)
        return now + 1 if len(first.rings) < 2 else 0

    first = Entry(slow)
    wheel.add(first, wheel.now)
    others = [Entry() for _ in range(6)]
    for number, other in enumerate(others):
        wheel.add(other, wheel.now + 2 + number)
    await clock.turn(6)
    assert [len(other.rings) for other in others] == [1] * 6


async def test_entry_that_another_removes_while_both_are_due_does_not_ring(clock: Clock) -> None:
    wheel = TimerWheel(TICK_SECONDS)

    def remove_other(now: int) -> int:
        wheel.remove(second if first.rings else first)
        return 0

    first, second = Entry(remove_other), Entry(remove_other)
    wheel.add(first, wheel.now + 1)
    wheel.add(second, wheel.now + 1)
    await clock.turn(3)
    assert len(first.rings) + len(second.rings) == 1


async def test_failure_of_one_is_reported_and_the_others_ring(clock: Clock) -> None:
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
    await clock.turn(2)
    assert all(len(entry.rings) == 1 for entry in [*broken, last])
    assert [str(report["exception"]) for report in reports] == ["broken"] * 3


async def test_wheel_turns_as_seldom_as_its_stride_says(clock: Clock) -> None:
    wheel = TimerWheel(TICK_SECONDS, 64)
    entries = [Entry() for _ in range(8)]
    for number, entry in enumerate(entries):
        wheel.add(entry, 65 + number * 4)
    await clock.turn(200)
    [ticks] = {tuple(entry.rings) for entry in entries}
    assert ticks == (129,), "all fire in the same turn, the first at or after their tick"


async def test_wheel_that_must_turn_more_often_does_so_at_once_and_loses_no_call(clock: Clock) -> None:
    wheel = TimerWheel(TICK_SECONDS, 1024)
    early, late = Entry(), Entry()
    wheel.add(early, wheel.now + 300)
    wheel.turn_within(16 * TICK_SECONDS)
    loop = asyncio.get_running_loop()
    [due] = [handle.when() for handle in loop._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]
    assert due - clock.now <= 16 * TICK_SECONDS, "its next turn is not that of before, which would come in 1024 ticks"
    wheel.add(late, wheel.now + 20)
    await clock.turn(40)
    assert (len(late.rings), early.rings) == (1, [])
    await clock.turn(1000)
    assert early.rings[0] >= 1024
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
