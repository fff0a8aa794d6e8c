"""What the samples of several workers say together."""

from typing import Any

import pytest

from gateway.observe.dashboard.snapshot_total import total


def sample(**facts: Any) -> dict[str, Any]:
    """Return an idle sample, except for these facts."""
    quiet = {"requests": 0, "memory_bytes": 0, "cpu": None, "loop_lag": 0.0, "loop_lag_worst": 0.0, "latencies": [], "routes": []}
    return quiet | {"streams": [], "streams_left_out": 0, "ended": [], "marks": []} | facts


def stream(number: int, rate: float | None = None, subscribers: int = 1, path: str = "/news") -> dict[str, Any]:
    return {"number": number, "rate": rate, "subscribers": subscribers, "route": "/", "path": path}


def route(path: str, **figures: Any) -> dict[str, Any]:
    unknown = {"in": None, "out": None, "bytes_out": None, "streams": 0, "subscribers": 0, "history_bytes": 0}
    return {"path": path, "mode": "direct", "upstream": "http://upstream"} | unknown | figures


def test_figures_are_added_up_and_the_worst_lag_counts() -> None:
    one, other = sample(requests=2, memory_bytes=3, cpu=0.5, loop_lag=0.1), sample(requests=5, memory_bytes=7, cpu=0.25, loop_lag=0.3)
    snapshot = total({0: one, 1: other})
    assert (snapshot["requests"], snapshot["memory_bytes"], snapshot["cpu"], snapshot["loop_lag"]) == (7, 10, 0.75, 0.3)


def test_unknown_value_is_not_zero() -> None:
    snapshot = total({0: sample(routes=[route("/")])})
    assert [snapshot[name] for name in ("cpu", "in", "out", "latency_p50", "latency_p99")] == [None] * 5


def test_routes_of_the_same_path_are_one() -> None:
    one = sample(routes=[route("/b", streams=1, **{"in": 1.5}), route("/a")])
    other = sample(routes=[route("/b", streams=2)])
    snapshot = total({0: one, 1: other})
    assert [(each["path"], each["streams"], each["in"]) for each in snapshot["routes"]] == [("/a", 0, None), ("/b", 3, 1.5)]
    assert snapshot["in"] == 1.5


def test_median_and_99th_percentile_are_those_of_all_samples() -> None:
    snapshot = total({0: sample(latencies=[0.003, 0.001]), 1: sample(latencies=[0.002] * 97 + [0.9])})
    assert (snapshot["latency_p50"], snapshot["latency_p99"]) == (0.002, 0.9)


def test_busiest_streams_are_kept_in_a_steady_order_and_the_others_are_counted() -> None:
    one = sample(streams=[stream(number, rate=number) for number in range(100)], streams_left_out=3)
    other = sample(streams=[stream(number, rate=number + 50, path="/a") for number in range(100)])
    snapshot = total({0: one, 1: other})
    shown = [(each["path"], each["key"]) for each in snapshot["streams"]]
    assert len(shown) == 100
    assert snapshot["streams_left_out"] == 103
    assert shown[:2] == [("/a", "1-25"), ("/a", "1-26")]
    assert shown[-1] == ("/news", "0-99")


@pytest.mark.parametrize(("what", "most"), [("ended", 30), ("marks", 100)])
def test_newest_of_all_workers_are_told_in_their_order(what: str, most: int) -> None:
    even, odd = ([{"at": float(at)} for at in range(begin, 400, 2)] for begin in (0, 1))
    snapshot = total({0: sample(**{what: even}), 1: sample(**{what: odd})})
    assert [entry["at"] for entry in snapshot[what]] == [float(at) for at in range(400 - most, 400)]


def test_marks_of_the_parent_are_among_them() -> None:
    snapshot = total({0: sample(marks=[{"at": 1.0}, {"at": 3.0}])}, [{"at": 2.0}])
    assert [mark["at"] for mark in snapshot["marks"]] == [1.0, 2.0, 3.0]
