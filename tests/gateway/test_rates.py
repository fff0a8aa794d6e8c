"""How much each client may have a second."""

import tempfile

import pytest

from gateway.access.admission import Admission, OpenCounts
from gateway.access.rates import Rate


class Clock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def rate(per_second: int, clock: Clock) -> Rate:
    return Rate(per_second, b"key", clock=clock)


def taken(rate: Rate, client: str, tries: int) -> int:
    return sum(rate.take(client) for _ in range(tries))


@pytest.mark.parametrize("per_second", [1, 3, 10, 1000])
def test_client_has_a_seconds_worth_at_once_and_then_its_rate(clock: Clock, per_second: int) -> None:
    requests = rate(per_second, clock)
    assert taken(requests, "a", 2 * per_second + 5) == per_second
    clock.now += 0.5
    assert taken(requests, "a", per_second + 5) == per_second // 2
    clock.now += 0.5
    assert taken(requests, "a", per_second + 5) == per_second - per_second // 2
    clock.now += 3600
    assert taken(requests, "a", 2 * per_second + 5) == per_second  # what was not used is not kept


def test_wait_is_true(clock: Clock) -> None:
    requests = rate(4, clock)
    assert requests.wait("a") == 0
    assert taken(requests, "a", 4) == 4
    assert requests.wait("a") == pytest.approx(0.25)
    clock.now += 0.24
    assert not requests.take("a")
    clock.now += 0.01
    assert requests.take("a")


def test_refused_request_does_not_count(clock: Clock) -> None:
    requests = rate(2, clock)
    assert taken(requests, "a", 1000) == 2
    clock.now += 1
    assert taken(requests, "a", 1000) == 2


def test_clients_do_not_disturb_each_other(clock: Clock) -> None:
    requests = rate(1, clock)
    served = sum(requests.take(f"10.0.{number // 256}.{number % 256}") for number in range(10_000))
    assert served > 10_000 * 0.95


def test_account_is_in_debt_until_its_bytes_are_paid_for(clock: Clock) -> None:
    account = rate(1000, clock).account("a")
    assert account.ahead() == 0
    assert account.spend(500) == pytest.approx(0.5)
    assert account.spend(1000) == pytest.approx(1.5)
    clock.now += 1
    assert account.ahead() == pytest.approx(0.5)
    clock.now += 1
    assert account.spend(100) == pytest.approx(0.1)  # and not less for having waited


def test_workers_share_a_rate_and_rates_do_not_share_memory() -> None:
    with tempfile.TemporaryFile() as file:
        file.truncate(OpenCounts.size(2))
        counts = [OpenCounts(file.fileno(), b"key", 2, own) for own in range(2)]
        one, other = (Admission(10, 10, each, requests_per_second=3, bytes_per_second=5) for each in counts)
        for admission in (one, other, one):
            assert admission.refusal("a") is None
        refusal = other.refusal("a")
        assert refusal == (429, "client-rate", "a may make 3 requests per second; retry in 1 s")
        assert other.retry_after_seconds("a") == 1
        assert other.refusal("b") is None
        rates = [each.rate(1, 5) for each in counts]
        assert [each.account("a").ahead() for each in rates] == [0, 0]
        rates[0].account("a").spend(10)
        assert rates[1].account("a").ahead() == pytest.approx(2, abs=0.5)
        counts[0].add("a", 1)
        counts[0].clear(0)
        assert rates[1].account("a").ahead() > 1


def test_without_limits_nothing_is_counted() -> None:
    admission = Admission(10, 10)
    assert [admission.refusal("a") for _ in range(100)] == [None] * 100
    assert admission.retry_after_seconds("a") == 0
    assert admission.too_soon("a") is None
    assert admission.allowance("a") is None
