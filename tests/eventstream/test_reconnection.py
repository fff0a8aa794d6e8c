"""Reconnection: the next delay."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstream import Reconnection


def steady(**options: float) -> Reconnection:
    return Reconnection(**options, rng=lambda: 0.0)


def delays_while_failing(reconnection: Reconnection, attempts: int) -> list[float]:
    delays = [reconnection.next_delay()]
    for _ in range(attempts):
        reconnection.failed()
        delays.append(reconnection.next_delay())
    return delays


def test_delay_is_the_reconnection_time_and_doubles_up_to_the_maximum_while_attempts_fail() -> None:
    assert delays_while_failing(steady(initial_seconds=3, maximum_seconds=20), 6) == [3, 3, 6, 12, 20, 20, 20]


def test_new_event_resets_the_back_off() -> None:
    reconnection = steady(initial_seconds=1)
    assert delays_while_failing(reconnection, 3) == [1, 1, 2, 4]
    reconnection.succeeded()
    assert reconnection.failures == 0
    assert reconnection.quiet
    reconnection.progressed()
    assert not reconnection.quiet
    reconnection.ended()
    assert delays_while_failing(reconnection, 3) == [1, 1, 2, 4]


def test_streams_that_end_at_once_without_an_event_back_off_as_failures_do() -> None:
    reconnection = steady(initial_seconds=1, maximum_seconds=5)
    delays = []
    for _ in range(5):
        reconnection.succeeded()
        reconnection.ended()
        delays.append(reconnection.next_delay())
    assert delays == [1, 2, 4, 5, 5]
    reconnection.failed()
    assert (reconnection.failures, reconnection.setbacks) == (1, 6)


def test_stream_that_was_open_for_long_is_no_setback_even_without_an_event() -> None:
    now = 0.0
    reconnection = Reconnection(initial_seconds=1, jitter=0, clock=lambda: now)
    for _ in range(3):
        reconnection.failed()
    reconnection.succeeded()
    now += 10
    reconnection.ended()
    assert (reconnection.setbacks, reconnection.next_delay()) == (0, 1)


def test_retry_of_the_server_replaces_the_initial_time() -> None:
    reconnection = steady(initial_seconds=3, maximum_seconds=5)
    reconnection.retry(1500)
    assert delays_while_failing(reconnection, 4) == [1.5, 1.5, 3, 5, 5]


def test_delay_is_never_below_the_retry_of_the_server() -> None:
    reconnection = steady(maximum_seconds=5)
    reconnection.retry(60_000)
    assert delays_while_failing(reconnection, 3) == [60, 60, 60, 60]


@pytest.mark.parametrize("retry", [0, 2, 99])
def test_retry_below_a_tenth_of_a_second_counts_as_that(retry: int) -> None:
    reconnection = steady(maximum_seconds=60)
    reconnection.retry(retry)
    assert delays_while_failing(reconnection, 4) == pytest.approx([0.1, 0.1, 0.2, 0.4, 0.8])


def test_retry_beyond_a_day_counts_as_a_day() -> None:
    reconnection = steady()
    reconnection.retry(10**400)
    assert reconnection.next_delay() == 86_400


def test_jitter_only_lengthens() -> None:
    assert Reconnection(initial_seconds=4, jitter=0.25, rng=lambda: 0.0).next_delay() == 4
    assert Reconnection(initial_seconds=4, jitter=0.25, rng=lambda: 1.0).next_delay() == 5


def test_clients_that_lose_their_connections_together_reconnect_apart() -> None:
    assert len({Reconnection().next_delay() for _ in range(100)}) > 90


@given(st.floats(0, 100), st.floats(0, 100), st.floats(1, 10), st.floats(0, 2), st.integers(0, 200), st.none() | st.integers(0, 10**20))
def test_delay_stays_within_its_bounds(
    initial: float, maximum: float, factor: float, jitter: float, failures: int, retry: int | None
) -> None:
    reconnection = Reconnection(initial_seconds=initial, maximum_seconds=maximum, factor=factor, jitter=jitter)
    if retry is not None:
        reconnection.retry(retry)
    asked_for = initial if retry is None else min(max(retry / 1000, 0.1), 86_400)
    for _ in range(failures):
        reconnection.failed()
    assert asked_for <= reconnection.next_delay() <= max(asked_for, maximum) * (1 + jitter) * (1 + 1e-9)


@pytest.mark.parametrize("wrong", [{"initial_seconds": -1}, {"maximum_seconds": -1}, {"factor": 0.5}, {"jitter": -0.1}])
def test_invalid_policy_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        Reconnection(**wrong)


def test_repr_shows_the_state() -> None:
    reconnection = steady(initial_seconds=2)
    reconnection.failed()
    assert repr(reconnection) == "<Reconnection seconds=2 failures=1 setbacks=1>"
