"""Budgets of memory, disk space or streams: what clients hold, counted from the first unit."""

from collections.abc import Callable, Iterator
from typing import Protocol

from ..policy.refusal import Reason, Refusal
from ..streams.holding import NOBODY
from .heaviest_first import HeaviestFirst

_SLACK = 256  # free an extra 1/256 of a limit, otherwise each event at the limit costs a search


class Elsewhere(Protocol):
    """Counts of the other workers."""

    def add(self, client: str, step: int) -> None:
        """Count `step` more for a client of this worker."""

    def elsewhere(self) -> int:
        """Return what the other workers hold."""

    def elsewhere_of(self, client: str) -> int:
        """Return what the other workers hold for one client."""


class _Account:
    """What one owner holds."""

    __slots__ = ("amount", "holdings", "reclaimable")

    def __init__(self) -> None:
        self.amount = 0
        self.holdings: dict[Holding, None] = {}  # oldest first
        self.reclaimable: dict[Holding, None] = {}  # those that have `reclaim`


class Holding:
    """Units of a budget held for `owner`. Open it with `Budget.open`, and close it when they are free again."""

    __slots__ = ("_budget", "_reclaim", "amount", "owner")

    def __init__(self, budget: "Budget", owner: str, reclaim: Callable[[], bool] | None) -> None:
        self._budget = budget
        self.owner = owner
        self.amount = 0
        """Units held."""
        self._reclaim = reclaim

    def __repr__(self) -> str:
        return f"<Holding {self.amount} of {self.owner or 'all'}>"

    @property
    def reclaim(self) -> Callable[[], bool] | None:
        """A function that frees some or all of it at once, for example by ending a stream. It returns whether it did. None: it cannot."""
        return self._reclaim

    @reclaim.setter
    def reclaim(self, reclaim: Callable[[], bool] | None) -> None:
        self._reclaim = reclaim
        self._budget._note_reclaimable(self)

    def set(self, amount: int) -> None:
        """Set the held units. If they grow beyond a limit, holdings give way at once."""
        if amount != self.amount:
            self._budget._change(self, amount)

    def give_to(self, owner: str) -> None:
        """Move it to another owner."""
        if owner != self.owner:
            self._budget._move(self, owner)

    def close(self) -> None:
        """Release it. Further calls do nothing."""
        self._budget._close(self)
        self._reclaim = None  # a reference cycle would keep its memory until the next garbage collection


class Budget:
    """Limits on one resource: `limit` units in total, and `limit_per_client` for each owner except NOBODY.

    Over a limit, holdings give way: the heaviest owner's first, its largest first, the oldest of equal ones. Those of NOBODY are last.
    With `passed`, nothing gives way by itself: the budget calls `passed`, and the caller frees units later by `relieve` or otherwise.
    With `later`, such as `loop.call_soon`, holdings give way in a separate call, because the one that grew may be in use.

    `unit` names the counted units in messages. With `elsewhere` the limits hold for all workers together, but only this worker's holdings
    give way.
    """

    def __init__(
        self,
        limit: int,
        limit_per_client: int,
        *,
        unit: str = "bytes",
        client_reason: Reason = "client-share",
        elsewhere: Elsewhere | None = None,
        passed: Callable[[], object] | None = None,
        later: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        self.limit = limit
        self.limit_per_client = limit_per_client
        self.amount = 0
        """Units held in this process."""
        self._unit = unit
        self._client_reason = client_reason
        self._elsewhere = elsewhere
        self._passed = passed
        self._later = later
        self._is_later = False  # whether a call of `relieve` is scheduled
        self._accounts: dict[str, _Account] = {}

    def __repr__(self) -> str:
        return f"<Budget {self.amount} of {self.limit} {self._unit}, owners={len(self._accounts)}>"

    def of(self, owner: str) -> int:
        """Return the units held for an owner in this process."""
        account = self._accounts.get(owner)
        return account.amount if account is not None else 0

    def open(self, owner: str, amount: int = 0, *, reclaim: Callable[[], bool] | None = None) -> Holding:
        """Hold `amount` units for an owner. Call `refusal` before, to check for room."""
        holding = Holding(self, owner, reclaim)
        self._account(owner).holdings[holding] = None
        self._note_reclaimable(holding)
        holding.set(amount)
        return holding

    def refusal(self, owner: str, amount: int = 1) -> Refusal | None:
        """Return why an owner may not hold `amount` more units, or None. Holdings give way first.

        At the owner's limit its own holdings give way. At the total limit those of owners that hold more than this one would give way,
        then its own.
        """
        if owner and self._in_all_workers_of(owner) + amount > self.limit_per_client:
            own = HeaviestFirst(self._accounts[owner].reclaimable if owner in self._accounts else ())
            while self._in_all_workers_of(owner) + amount > self.limit_per_client:
                if not _take_next(own):
                    return Refusal(
                        429,
                        self._client_reason,
                        f"{owner} holds {self._in_all_workers_of(owner)} {self._unit} and requests {amount} more, "
                        f"the limit is {self.limit_per_client}",
                    )
        if self._in_all_workers() + amount > self.limit:
            for queue, holding in self._heaviest_first(self.of(owner) + amount, owner):
                if _take(holding) and holding.amount:
                    queue.put_back(holding)
                if self._in_all_workers() + amount <= self.limit:
                    return None
            return Refusal(
                503,
                "overload",
                f"{self._in_all_workers()} {self._unit} are held, {amount} more are requested, the limit is {self.limit}; retry later",
            )
        return None

    def relieve(self) -> None:
        """Let holdings give way until the limits hold with some slack, as far as possible."""
        self._is_later = False
        for account in [account for owner, account in self._accounts.items() if owner and account.amount > self.limit_per_client]:
            self._relieve_owner(account)
        if self.amount <= self.limit:
            return
        least = self.limit - self.limit // _SLACK
        for queue, holding in self._heaviest_first():
            if self.amount <= least:
                return
            if _take(holding) and holding.amount:
                queue.put_back(holding)

    def free(self, amount: int) -> int:
        """Let holdings give way until `amount` more units are free, as far as possible. Return how many are."""
        least = self.amount - amount
        before = self.amount
        for queue, holding in self._heaviest_first():
            if _take(holding) and holding.amount:
                queue.put_back(holding)
            if self.amount <= least:
                break
        return before - self.amount

    def _in_all_workers(self) -> int:
        return self.amount + (self._elsewhere.elsewhere() if self._elsewhere is not None else 0)

    def _in_all_workers_of(self, owner: str) -> int:
        return self.of(owner) + (self._elsewhere.elsewhere_of(owner) if self._elsewhere is not None else 0)

    def _heaviest_first(self, more_than: int = -1, asker: str = "") -> Iterator[tuple[HeaviestFirst[Holding], Holding]]:
        """Yield holdings of owners with more than `more_than` and of `asker`, the heaviest owner's largest first, then those of NOBODY.

        Each comes with the queue of its owner's other holdings, to put it back.
        """
        own = self._accounts.get(asker)
        named = [account for owner, account in self._accounts.items() if owner and (account.amount > more_than or account is own)]
        for accounts in (named, [self._accounts[NOBODY]] if NOBODY in self._accounts else []):
            owners = HeaviestFirst(accounts)
            queues: dict[_Account, HeaviestFirst[Holding]] = {}
            while (account := owners.pop()) is not None:
                if accounts is named and account.amount <= more_than and account is not own:
                    continue
                if account not in queues:
                    queues[account] = HeaviestFirst(account.reclaimable)
                holding = queues[account].pop()
                if holding is not None:
                    yield queues[account], holding
                    owners.put_back(account)

    def _relieve_owner(self, account: _Account) -> None:
        least = self.limit_per_client - self.limit_per_client // _SLACK
        queue = HeaviestFirst(account.reclaimable)
        while account.amount > least and _take_next(queue):
            pass

    def _is_open(self, holding: Holding) -> bool:
        account = self._accounts.get(holding.owner)
        return account is not None and holding in account.holdings

    def _note_reclaimable(self, holding: Holding) -> None:
        if not self._is_open(holding):
            return
        reclaimable = self._accounts[holding.owner].reclaimable
        if holding.reclaim is None:
            reclaimable.pop(holding, None)
        else:
            reclaimable[holding] = None

    def _account(self, owner: str) -> _Account:
        account = self._accounts.get(owner)
        if account is None:
            account = self._accounts[owner] = _Account()
        return account

    def _change(self, holding: Holding, amount: int) -> None:
        if not self._is_open(holding):
            return
        account = self._accounts[holding.owner]
        step = amount - holding.amount
        holding.amount = amount
        self._count(holding.owner, account, step)
        if step <= 0 or (self.amount <= self.limit and (account.amount <= self.limit_per_client or not holding.owner)):
            return
        if self._passed is not None:
            self._passed()
            return
        if self._later is not None:
            if not self._is_later:
                self._is_later = True
                self._later(self.relieve)
            return
        if holding.owner and account.amount > self.limit_per_client:
            self._relieve_owner(account)
        if self.amount > self.limit:
            self.relieve()

    def _count(self, owner: str, account: _Account, step: int) -> None:
        account.amount += step
        self.amount += step
        if self._elsewhere is not None and step:
            self._elsewhere.add(owner, step)

    def _close(self, holding: Holding) -> None:
        if not self._is_open(holding):
            return
        account = self._accounts[holding.owner]
        del account.holdings[holding]
        account.reclaimable.pop(holding, None)
        self._count(holding.owner, account, -holding.amount)
        holding.amount = 0
        if not account.holdings:
            del self._accounts[holding.owner]  # otherwise every owner ever seen stays in memory

    def _move(self, holding: Holding, owner: str) -> None:
        amount = holding.amount
        if self._is_open(holding):
            self._close(holding)
            self._account(owner).holdings[holding] = None
        holding.owner = owner
        self._note_reclaimable(holding)
        self._change(holding, amount)


def _take(holding: Holding) -> bool:
    """Make a holding give way, and return whether it did."""
    return bool(holding.amount) and holding.reclaim is not None and holding.reclaim()


def _take_next(queue: HeaviestFirst[Holding]) -> bool:
    """Make the first holding of a queue that can give way do so, and return whether one did."""
    while (holding := queue.pop()) is not None:
        if _take(holding):
            if holding.amount:
                queue.put_back(holding)
            return True
    return False
