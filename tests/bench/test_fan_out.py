"""One stream, many subscribers: the load checks every event, and the tables show the defects."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.crowd import Crowd, Subscriber, read_part
from bench.events import render_with_id
from bench.fan_out import FAN_OUTS, Fanned, fan_out_table
from tests.bench.test_bench import rows, run, started

SIZE = 80
EVENTS = [render_with_id(number, SIZE) for number in range(6)]


def test_gateway_delivers_all_events_to_all_subscribers(tmp_path: Path) -> None:
    arguments = ["busy", "--subscribers", "20", "--seconds", "0.5", "--repeat", "1", "--servers", "gateway,floor,queues"]
    found = {row["hub"]: row for row in rows(run(arguments, tmp_path))}
    assert found.keys() == {"gateway", "floor", "queues"}
    for row in found.values():
        assert row["defects"] == "none"
        assert 400 < float(row["deliveries/s"]) < 3600  # 1200, more or less on a busy machine that delivers late and all at once
        assert 0 < float(row["p50 ms"]) <= float(row["p99 ms"])
    assert found["floor"]["× floor"] == "1.00"


def test_reconnecting_subscribers_get_the_missed_events(tmp_path: Path) -> None:
    arguments = ["storm", "--subscribers", "10", "--seconds", "0.5", "--repeat", "1", "--servers", "gateway,floor"]
    [row] = rows(run(arguments, tmp_path))
    assert row["hub"] == "gateway"
    assert row["defects"] == "none"
    assert float(row["deliveries/s"]) * (float(row["caught up s"]) + 0.01) > 10 * 5000  # the printed figures are rounded


def test_number_of_subscribers_must_be_positive(tmp_path: Path) -> None:
    with started(["many", "--subscribers", "0"], tmp_path) as process:
        _, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "--subscribers must be positive" in err


class Wire(Crowd):
    """A crowd of one, without a connection."""

    def __init__(self, expected: int = -1) -> None:
        super().__init__(0, "/")
        self.subscriber = Subscriber(self, None, b"", expected)  # type: ignore[arg-type]

    def read_all(self, pieces: Sequence[bytes]) -> None:
        for piece in pieces:
            self.subscriber.take(piece)


def chunked(*bodies: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(body), body) for body in bodies)


@pytest.mark.parametrize("cut", [1, 7, SIZE, 10_000])
@pytest.mark.parametrize("delimited", [False, True])
def test_whole_events_are_no_defect_however_they_are_cut(cut: int, delimited: bool) -> None:
    parts = [b": hi\n\n", EVENTS[0] + EVENTS[1], b":\n", EVENTS[2], b":\n" + EVENTS[3] + b":\n"]
    wire = chunked(*parts) if delimited else b"HTTP/1.1 200 OK\r\n\r\n" + b"".join(parts)
    crowd = Wire(expected=0)
    crowd.read_all([wire[start : start + cut] for start in range(0, len(wire), cut)])
    assert crowd.defects == Counter()
    assert crowd.events == 4


@pytest.mark.parametrize(
    ("bodies", "defects"),
    [
        pytest.param([EVENTS[0], EVENTS[3]], {"lost": 2}, id="lost between chunks"),
        pytest.param([EVENTS[0] + EVENTS[3]], {"lost": 2}, id="lost within a chunk"),
        pytest.param([EVENTS[2]], {"lost": 2}, id="lost at the beginning"),
        pytest.param([EVENTS[0], EVENTS[1], EVENTS[1], EVENTS[2]], {"repeated": 1}, id="repeated"),
        pytest.param([EVENTS[0] + EVENTS[0] + EVENTS[1]], {"repeated": 1}, id="repeated within a chunk"),
        pytest.param([EVENTS[0], EVENTS[1].replace(b"abc", b"abd"), EVENTS[2]], {"corrupt": 1}, id="altered"),
        pytest.param([EVENTS[0], EVENTS[1][:20] + b"\n\n", EVENTS[2]], {"corrupt": 1, "lost": 1}, id="cut"),
    ],
)
def test_each_fault_is_counted(bodies: list[bytes], defects: dict[str, int]) -> None:
    crowd = Wire(expected=0)
    crowd.read_all([chunked(*bodies)])
    assert crowd.defects == Counter(defects)


def test_other_status_is_a_defect() -> None:
    crowd = Wire()
    crowd.read_all([b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"])
    assert crowd.defects == Counter({"status 503": 1})


def test_part_has_numbers_id_and_times_of_its_events() -> None:
    part = read_part(b"id: 1234:5\n" + EVENTS[4].partition(b"\n")[2] + EVENTS[5][:20])
    assert (part.first, part.last, part.events, part.id) == (4, 4, 1, "1234:5")
    assert len(part.sent_ns) == 1
    assert part.rest == EVENTS[5][:20]


def fanned(cpu_us: float, **defects: int) -> Fanned:
    return Fanned(100, cpu_us, 0.5, 10, 1.1, 2.0, 3.0, 0.5, 1.0, 2.0, None, Counter(defects))


def test_table_has_medians_the_ratio_to_the_floor_and_all_defects() -> None:
    results = {"gateway": [fanned(60, lost=1), fanned(30), fanned(10, repeated=2)], "nchan": [], "floor": [fanned(20)]}
    gateway, nchan, floor = rows(fan_out_table(FAN_OUTS["many"], results))
    assert (gateway["CPU µs/delivery"], gateway["× floor"], gateway["defects"]) == ("30.0", "1.50", "1 lost, 2 repeated")
    assert (floor["× floor"], floor["defects"]) == ("1.00", "none")
    assert nchan["defects"] == "not measured"
