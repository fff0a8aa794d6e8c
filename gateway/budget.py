"""What clients hold of one resource: memory, disk or streams, counted from its first unit to its last."""

from collections.abc import Callable, Iterator
from typing import Protocol

from .refusal import Reason, Refusal

NOBODY = ""
"""The owner of what clients of several owners use together, such as a stream that they share."""


class Elsewhere(Protocol):
    """Counts what the other workers hold."""

    def add(self, client: str, step: int) -> None:
        """Count `step` more for a client of this worker."""

    def elsewhere(self) -> int:
        """Return what the other workers hold."""

    def elsewhere_of(self, client: str) -> int:
        """Return what the other workers hold for one client."""


class _Account:
    """What one owner holds."""

    __slots__ = ("amount", "holdings")

    def __init__(self) -> None:
        self.amount = 0
        self.holdings: dict[Holding, None] = {}  # the oldest first


class Holding:
    """One thing that is held for `owner`. Open it with `Budget.open`, and close it when the thing is gone."""

    __slots__ = ("_budget", "amount", "give_way", "owner")

    def __init__(self, budget: "Budget", owner: str, give_way: Callable[[], bool] | None) -> None:
        self._budget = budget
        self.owner = owner
        self.amount = 0
        """Units that it takes."""
        self.give_way = give_way
        """Free some or all of it, for example by ending a stream, and return whether that is done. None: it cannot."""

    def __repr__(self) -> str:
        return f"<Holding {self.amount} of {self.owner or 'nobody'}>"

    def set(self, amount: int) -> None:
        """Count that it takes `amount` units now. If that is more than before and too much, holdings give way at once."""
        if amount != self.amount:
            self._budget._change(self, amount)

    def give_to(self, owner: str) -> None:
        """Count it for another owner from now on."""
        if owner != self.owner:
            self._budget._move(self, owner)

    def close(self) -> None:
        """Count it out. May be called again."""
        self._budget._close(self)


class Budget:
    """What may be held of one resource: `limit` units in all, and `limit_per_client` for each owner but NOBODY.

    Over a limit, holdings give way: the heaviest owner's first, and of these the largest, the oldest of equal ones; those of NOBODY last.
    With `passed`, nothing gives way by itself: `passed` is called, for a caller that sees to it later by `relieve` or by its own means.

    `unit` says to people what is counted. With `elsewhere` the limits hold for all workers together; what gives way is this worker's.
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
    ) -> None:
        self.limit = limit
        self.limit_per_client = limit_per_client
        self.amount = 0
        """Units that are held in this process."""
        self._unit = unit
        self._client_reason = client_reason
        self._elsewhere = elsewhere
        self._passed = passed
        self._accounts: dict[str, _Account] = {}

    def __repr__(self) -> str:
        return f"<Budget {self.amount} of {self.limit} {self._unit}, owners={len(self._accounts)}>"

    def of(self, owner: str) -> int:
        """Return the units that are held for an owner in this process."""
        account = self._accounts.get(owner)
        return account.amount if account is not None else 0

    def open(self, owner: str, amount: int = 0, *, give_way: Callable[[], bool] | None = None) -> Holding:
        """Hold `amount` units for an owner. `refusal` says beforehand whether there is room."""
        holding = Holding(self, owner, give_way)
        self._account(owner).holdings[holding] = None
        holding.set(amount)
        return holding

    def refusal(self, owner: str, amount: int = 1) -> Refusal | None:
        """Return why `amount` more units may not be held for an owner, None when they may. Before that, other holdings give way: the
        owner's own where it is at its limit, and for the limit in all those of owners that hold more than this one would."""
        while owner and self._in_all_workers_of(owner) + amount > self.limit_per_client:
            if not self._take(self._account(owner)):
                return Refusal(
                    429,
                    self._client_reason,
                    f"{owner} holds {self._in_all_workers_of(owner)} {self._unit} and asks for {amount} more, "
                    f"the limit is {self.limit_per_client}",
                )
        while self._in_all_workers() + amount > self.limit:
            if not any(map(self._take, self._heavier_than(self.of(owner) + amount))):
                return Refusal(
                    503,
                    "overload",
                    f"{self._in_all_workers()} {self._unit} are held, {amount} more are asked for, the limit is {self.limit}; "
                    "come back later",
                )
        return None

    def relieve(self) -> None:
        """Let holdings give way until the limits hold, as far as they can."""
        for account in [account for owner, account in self._accounts.items() if owner and account.amount > self.limit_per_client]:
            self._relieve_owner(account)
        while self.amount > self.limit:
            if not any(map(self._take, self._heavier_than(0))):
                return

    def heaviest_first(self) -> Iterator[Holding]:
        """Return all holdings in the order in which they should give way; what is closed meanwhile changes the order."""
        seen: set[Holding] = set()
        while True:
            left = ((account, [each for each in account.holdings if each not in seen]) for account in self._heavier_than(0))
            account_left = next((holdings for _, holdings in left if holdings), None)
            if account_left is None:
                return
            holding = max(account_left, key=_amount)
            seen.add(holding)
            yield holding

    def _in_all_workers(self) -> int:
        return self.amount + (self._elsewhere.elsewhere() if self._elsewhere is not None else 0)

    def _in_all_workers_of(self, owner: str) -> int:
        return self.of(owner) + (self._elsewhere.elsewhere_of(owner) if self._elsewhere is not None else 0)

    def _heavier_than(self, amount: int) -> Iterator[_Account]:
        """Return the accounts with more than `amount`, the heaviest first. Mostly the first is enough, so nothing is sorted for it."""
        named = [account for owner, account in self._accounts.items() if owner and account.amount > amount]
        if named:
            heaviest = max(named, key=_amount)
            yield heaviest
            yield from sorted((account for account in named if account is not heaviest), key=_amount, reverse=True)
        if NOBODY in self._accounts:
            yield self._accounts[NOBODY]

    def _take(self, account: _Account) -> bool:
        """Let one holding of an account give way, and return whether one did."""
        if not account.holdings:
            return False
        largest = max(account.holdings, key=_amount)
        if largest.give_way is not None and largest.give_way():
            return True
        others = sorted((each for each in account.holdings if each is not largest), key=_amount, reverse=True)
        return any(each.give_way() for each in others if each.give_way is not None)

    def _relieve_owner(self, account: _Account) -> None:
        while account.amount > self.limit_per_client:
            if not self._take(account):
                return

    def _account(self, owner: str) -> _Account:
        account = self._accounts.get(owner)
        if account is None:
            account = self._accounts[owner] = _Account()
        return account

    def _change(self, holding: Holding, amount: int) -> None:
        account = self._accounts.get(holding.owner)
        if account is None or holding not in account.holdings:
            return  # it is closed
        step = amount - holding.amount
        holding.amount = amount
        self._count(holding.owner, account, step)
        if step <= 0 or (self.amount <= self.limit and (account.amount <= self.limit_per_client or not holding.owner)):
            return
        if self._passed is not None:
            self._passed()
            return
        if holding.owner:
            self._relieve_owner(account)
        if self.amount > self.limit:
            self.relieve()

    def _count(self, owner: str, account: _Account, step: int) -> None:
        account.amount += step
        self.amount += step
        if self._elsewhere is not None and step:
            self._elsewhere.add(owner, step)

    def _close(self, holding: Holding) -> None:
        account = self._accounts.get(holding.owner)
        if account is None or holding not in account.holdings:
            return
        del account.holdings[holding]
        self._count(holding.owner, account, -holding.amount)
        holding.amount = 0
        if not account.holdings:
            del self._accounts[holding.owner]  # or owners that came once would be kept for ever

    def _move(self, holding: Holding, owner: str) -> None:
        account = self._accounts.get(holding.owner)
        amount = holding.amount
        if account is not None and holding in account.holdings:
            self._close(holding)
            self._account(owner).holdings[holding] = None
        holding.owner = owner
        self._change(holding, amount)


def _amount(each: Holding | _Account) -> int:
    return each.amount
