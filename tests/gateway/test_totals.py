"""Figures of several workers as those of one gateway."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, disable_created_metrics, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gateway.observe.totals import Totals
from tests.kit.gateway_process import meter


def exposed(registry: CollectorRegistry) -> str:
    disable_created_metrics()  # type: ignore[no-untyped-call]
    return generate_latest(registry).decode()


def told(requests: dict[str, int], open_now: int = 0, seconds: tuple[float, ...] = ()) -> str:
    """Return the metrics of a worker."""
    registry = CollectorRegistry()
    counter = Counter("requests_total", 'Requests with a \\ and a "quote".', ["path"], registry=registry)
    for path, count in requests.items():
        counter.labels(path).inc(count)
    Gauge("open_now", "Open now.", registry=registry).set(open_now)
    histogram = Histogram("taken_seconds", "Time taken.", buckets=(0.1, 1), registry=registry)
    for value in seconds:
        histogram.observe(value)
    return exposed(registry)


def read(totals: Totals) -> dict[str, Metric]:
    """Return the metrics of a gateway with `totals`, as Prometheus reads them."""
    registry = CollectorRegistry()
    registry.register(totals)
    return {family.name: family for family in text_string_to_metric_families(exposed(registry))}


def test_figures_of_one_worker_are_passed_on_unchanged() -> None:
    totals, text = Totals(), told({'a"\n\\b': 3}, 2, (0.5,))
    totals.take(0, text)
    registry = CollectorRegistry()
    registry.register(totals)
    assert exposed(registry) == text


def test_figures_add_up_by_name_and_labels() -> None:
    totals = Totals()
    totals.take(0, told({"a": 3, "b": 1}, 2, (0.05, 0.5)))
    totals.take(1, told({"a": 4, "c": 5}, 3, (0.5, 5.0)))
    figures = read(totals)
    assert [meter(figures, "requests_total", path=path) for path in "abc"] == [7, 1, 5]
    assert meter(figures, "open_now") == 5
    assert [meter(figures, "taken_seconds_bucket", le=le) for le in ("0.1", "1.0", "+Inf")] == [1, 3, 4]
    assert meter(figures, "taken_seconds_count") == 4
    assert meter(figures, "taken_seconds_sum") == 6.05


def test_worst_lag_and_keys_and_oldest_start_of_the_workers_stand_for_all() -> None:
    totals = Totals()
    for worker, (lag, started) in enumerate(((0.25, 2000.0), (1.5, 1000.0), (0.5, 3000.0))):
        registry = CollectorRegistry()
        Gauge("gateway_loop_lag_worst_seconds", "Worst.", registry=registry).set(lag)
        Gauge("process_start_time_seconds", "Start.", registry=registry).set(started)
        Gauge("gateway_key_set_age_seconds", "Age.", registry=registry).set(started)
        Gauge("gateway_key_set_keys", "Keys.", registry=registry).set(started)
        Gauge("gateway_build_info", "Build.", ["version"], registry=registry).labels("1").set(1)
        totals.take(worker, exposed(registry))
    figures = read(totals)
    assert meter(figures, "gateway_loop_lag_worst_seconds") == 1.5
    assert meter(figures, "process_start_time_seconds") == 1000
    assert (meter(figures, "gateway_key_set_age_seconds"), meter(figures, "gateway_key_set_keys")) == (3000, 1000)
    assert meter(figures, "gateway_build_info", version="1") == 1


def test_newest_figures_of_a_worker_replace_its_older_ones() -> None:
    totals = Totals()
    totals.take(0, told({"a": 3}, 2))
    totals.take(0, told({"a": 4}, 1))
    figures = read(totals)
    assert (meter(figures, "requests_total"), meter(figures, "open_now")) == (4, 1)


def test_counters_and_histograms_of_a_worker_that_is_gone_stay_and_gauges_go() -> None:
    totals = Totals()
    for count in (3, 4):  # one process after the other
        totals.take(0, told({"a": count}, 2, (0.5,)))
        totals.retire(0)
    figures = read(totals)
    assert meter(figures, "requests_total", path="a") == 7
    assert meter(figures, "taken_seconds_count") == 2
    assert figures["open_now"].samples == []
    totals.take(0, told({"a": 1}, 1))
    figures = read(totals)
    assert (meter(figures, "requests_total"), meter(figures, "open_now")) == (8, 1)


def test_worker_that_never_said_anything_may_go() -> None:
    totals = Totals()
    totals.retire(0)
    assert read(totals) == {}
