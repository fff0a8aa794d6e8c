"""What clients hold, and what gives way when it is too much."""

import tempfile
from collections.abc import Callable

from gateway.access.admission import Admission, OpenCounts
from gateway.access.budget import Budget, Holding
from gateway.streams.holding import NOBODY


class Thing:
    """What is held: it can be told to give way, and is gone then."""

    def __init__(self, budget: Budget, owner: str, amount: int, *, gone: list[str], name: str = "", stays: bool = False) -> None:
        self.name = name or f"{owner} {amount}"
        self._gone = gone
        self._stays = stays
        self.holding: Holding = budget.open(owner, reclaim=self.reclaim)
        self.holding.set(amount)

    def reclaim(self) -> bool:
        if self._stays:
            return False
        self._gone.append(self.name)
        self.holding.close()
        return True


def budget(limit: int, limit_per_client: int = 2**62, passed: Callable[[], object] | None = None) -> Budget:
    return Budget(limit, limit_per_client, unit="pieces", passed=passed)


def test_holding_counts_until_it_is_closed() -> None:
    held = budget(100)
    one, other = held.open("a", 3), held.open("b", 4)
    one.set(10)
    assert (held.amount, held.of("a"), held.of("b"), held.of("c")) == (14, 10, 4, 0)
    one.close()
    one.close()
    one.set(50)
    assert (held.amount, held.of("a")) == (4, 0)
    other.close()
    assert repr(held) == "<Budget 0 of 100 pieces, owners=0>"


def test_heaviest_owners_largest_gives_way_and_no_strangers() -> None:
    gone: list[str] = []
    held = budget(100)
    for owner, amount in (("light", 30), ("heavy", 20), ("heavy", 25), ("heavy", 15), (NOBODY, 5)):
        Thing(held, owner, amount, gone=gone)
    assert gone == []
    Thing(held, "light", 10, gone=gone)
    assert gone == ["heavy 25"]
    Thing(held, "newcomer", 41, gone=gone)
    assert gone == ["heavy 25", "newcomer 41"]


def test_holding_that_cannot_give_way_is_skipped() -> None:
    gone: list[str] = []
    held = budget(100)
    Thing(held, "heavy", 60, gone=gone, stays=True)
    Thing(held, "heavy", 10, gone=gone)
    Thing(held, "light", 20, gone=gone)
    Thing(held, "newcomer", 15, gone=gone)
    assert gone == ["heavy 10"]
    Thing(held, "newcomer", 10, gone=gone)
    assert gone == ["heavy 10", "newcomer 15"]


def test_holding_without_an_owner_gives_way_last() -> None:
    gone: list[str] = []
    held = budget(100)
    Thing(held, NOBODY, 90, gone=gone)
    Thing(held, "a", 8, gone=gone)
    Thing(held, "b", 5, gone=gone, stays=True)
    assert gone == ["a 8"]
    Thing(held, "b", 7, gone=gone, stays=True)
    assert gone == ["a 8", f"{NOBODY} 90"]


def test_owner_at_its_limit_gives_way_itself_although_there_is_room() -> None:
    gone: list[str] = []
    held = budget(100, 20)
    Thing(held, "a", 15, gone=gone)
    Thing(held, "b", 15, gone=gone)
    Thing(held, "a", 10, gone=gone)
    assert gone == ["a 15"]
    Thing(held, NOBODY, 40, gone=gone)
    assert gone == ["a 15"]


def test_of_equal_holdings_the_oldest_gives_way() -> None:
    gone: list[str] = []
    held = budget(3)
    for name in ("first", "second", "third", "fourth"):
        Thing(held, "a", 1, gone=gone, name=name)
    assert gone == ["first"]


def test_refusal_says_which_limit_and_comes_only_when_nothing_gives_way() -> None:
    gone: list[str] = []
    held = budget(10, 4)
    things = [Thing(held, "a", 2, gone=gone), Thing(held, "a", 2, gone=gone, stays=True)]
    assert held.refusal("a", 2) is None
    assert gone == ["a 2"]
    Thing(held, "a", 2, gone=gone, stays=True)
    assert held.refusal("a", 2) == (429, "client-share", "a holds 4 pieces and requests 2 more, the limit is 4")
    Thing(held, "b", 4, gone=gone, stays=True)
    assert held.refusal("c", 3) == (503, "overload", "8 pieces are held, 3 more are requested, the limit is 10; retry later")
    assert held.refusal("c", 2) is None
    assert len(things) == 2


def test_newcomer_displaces_only_owners_that_hold_more_than_it_would() -> None:
    gone: list[str] = []
    held = budget(10)
    Thing(held, "a", 3, gone=gone)
    Thing(held, "a", 3, gone=gone)
    Thing(held, "b", 4, gone=gone)
    refusal = held.refusal("c", 6)
    assert refusal is not None
    assert refusal.status == 503
    assert held.refusal("c", 3) is None
    assert gone == ["a 3"]


def test_holding_that_changes_its_owner_counts_for_the_new_one() -> None:
    gone: list[str] = []
    held = budget(100, 20)
    thing = Thing(held, "a", 18, gone=gone)
    thing.holding.give_to(NOBODY)
    Thing(held, "a", 18, gone=gone)
    assert (held.amount, held.of("a"), held.of(NOBODY), gone) == (36, 18, 18, [])
    thing.holding.give_to("a")
    assert (held.of(NOBODY), gone) == (0, ["a 18"])
    thing.holding.close()
    thing.holding.give_to("b")
    assert (held.amount, held.of("b")) == (0, 0)


def test_caller_may_see_to_it_later() -> None:
    gone: list[str] = []
    passed: list[int] = []
    held = budget(10, passed=lambda: passed.append(held.amount))
    Thing(held, "a", 8, gone=gone)
    Thing(held, "b", 4, gone=gone)
    assert (passed, gone) == ([12], [])
    held.relieve()
    assert gone == ["a 8"]


def test_limits_of_streams_hold_for_all_workers_together() -> None:
    with tempfile.TemporaryFile() as file:
        file.truncate(OpenCounts.size(2))
        first, second = (Admission(5, 3, OpenCounts(file.fileno(), b"key", 2, own)) for own in range(2))
        held = [first.streams.open("a", 1), second.streams.open("a", 1), second.streams.open("a", 1)]
        assert first.refusal("a") is None, "requests are counted by themselves"
        refusal = first.streams.refusal("a")
        assert refusal == (429, "client-streams", "a holds 3 streams that outlive their requests and requests 1 more, the limit is 3")
        held += [first.streams.open("b", 1), first.streams.open("b", 1)]
        assert second.streams.refusal("c") is not None
        held.pop().close()
        assert second.streams.refusal("c") is None
        OpenCounts(file.fileno(), b"key", 2, 0).at(1).clear(1)
        assert first.streams.refusal("a") is None


def test_holding_that_cannot_give_way_for_now_is_passed_over() -> None:
    gone: list[str] = []
    held = budget(2)
    first, second = Thing(held, "a", 1, gone=gone, name="first"), Thing(held, "a", 1, gone=gone, name="second")
    first.holding.reclaim = None
    assert held.refusal("a") is None
    assert gone == ["second"]
    first.holding.reclaim = first.reclaim
    second.holding.reclaim = second.reclaim
    assert held.refusal("a", 2) is None
    assert gone == ["second", "first"]


def test_some_give_way_for_the_sake_of_something_else() -> None:
    gone: list[str] = []
    held = budget(100)
    for owner, stays in (("a", False), ("a", True), ("a", False), ("b", False), (NOBODY, False)):
        Thing(held, owner, 1, gone=gone, stays=stays)
    assert (held.free(1), gone) == (1, ["a 1"])
    assert (held.free(5), gone) == (3, ["a 1", "a 1", "b 1", " 1"])


def test_thousands_at_the_limit_are_searched_once_for_many_that_grow() -> None:
    """Or each event would cost a search through all histories."""
    looked_at = 0
    held = Budget(1_000_000, 1_000_000)

    class Part:
        def __init__(self, owner: str) -> None:
            self.holding = held.open(owner, 100, reclaim=self.reclaim)

        def reclaim(self) -> bool:
            nonlocal looked_at
            looked_at += 1
            self.holding.set(self.holding.amount - 50)
            return True

    parts = [Part(f"client {number % 100}") for number in range(10_000)]
    for part in parts:
        part.holding.set(part.holding.amount + 10)
    assert held.amount <= 1_000_000
    freed = 10 * len(parts)
    assert freed / 50 <= looked_at <= 1.1 * freed / 50 + 1_000_000 / 50 / 100
    searches = 0
    heaviest_first = held._heaviest_first

    def count(*arguments: object) -> object:
        nonlocal searches
        searches += 1
        return heaviest_first(*arguments)  # type: ignore[arg-type]

    held._heaviest_first = count  # type: ignore[method-assign, assignment]
    for part in parts:
        part.holding.set(part.holding.amount + 1)
    assert 0 < searches < len(parts) / 100
