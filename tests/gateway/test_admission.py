"""How many requests may be open, in one process and over several."""

import tempfile
from collections.abc import Callable, Iterator

import pytest

from gateway.access.admission import Admission, OpenCounts

Share = Callable[[int], OpenCounts]


@pytest.fixture
def share() -> Iterator[Share]:
    """Return the shared counts of worker `own` of three."""
    with tempfile.TemporaryFile() as file:
        file.truncate(OpenCounts.size(3))
        yield lambda own: OpenCounts(file.fileno(), b"key", 3, own)


def test_further_request_is_refused_at_the_limit_and_admitted_when_one_has_left() -> None:
    admission = Admission(2, 2)
    admission.enter("a")
    admission.enter("b")
    assert admission.refusal("c") == (503, "overload", "2 streams are open, the limit is 2; retry later")
    admission.leave("a")
    assert admission.refusal("c") is None


def test_client_at_its_limit_is_refused_and_others_are_not() -> None:
    admission = Admission(10, 2)
    admission.enter("a")
    admission.enter("a")
    assert admission.refusal("a") == (429, "client-streams", "a has 2 streams open, the limit is 2; close one first")
    assert admission.refusal("b") is None


def test_clients_that_have_left_are_forgotten() -> None:
    admission = Admission(10, 10)
    for number in range(100):
        assert admission.refusal(f"client {number}") is None
        admission.enter(f"client {number}")
        admission.leave(f"client {number}")
    assert repr(admission) == "<Admission open=0 clients=0>"


def test_limits_hold_for_all_workers_together(share: Share) -> None:
    first, second, third = (Admission(5, 3, share(own)) for own in range(3))
    for admission in (first, second, first):
        admission.enter("a")
    for admission in (first, second, third):
        assert admission.refusal("a") == (429, "client-streams", "a has 3 streams open, the limit is 3; close one first")
        assert admission.refusal("b") is None
    second.enter("b")
    third.enter("b")
    for admission in (first, second, third):
        assert admission.refusal("c") == (503, "overload", "5 streams are open, the limit is 5; retry later")
    first.leave("a")
    assert third.refusal("c") is None
    assert third.refusal("a") is None


def test_worker_that_is_gone_has_nothing_open(share: Share) -> None:
    gone, other = Admission(5, 2, share(0)), Admission(5, 2, share(1))
    gone.enter("a")
    gone.enter("a")
    other.enter("b")
    share(2).clear(0)
    assert other.refusal("a") is None
    assert share(2).elsewhere() == 1


def test_ten_thousand_clients_are_hardly_ever_taken_for_one_another(share: Share) -> None:
    elsewhere, here = share(0), share(1)
    for number in range(10_000):
        elsewhere.add(f"10.0.{number // 256}.{number % 256}", 1)
    too_high = sum(here.elsewhere_of(f"10.0.{number // 256}.{number % 256}") > 1 for number in range(10_000))
    assert too_high < 10_000 * 0.05
    assert here.elsewhere() == 10_000
