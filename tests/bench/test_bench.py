"""The measurements run, detect faults, and leave no process behind."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.events import Checker, render, render_chunks
from bench.measure import Measurement, Workload
from bench.process_tree import descendants
from bench.tables import workload_table
from tests.kit.stack import REPOSITORY, clean_environment
from tests.kit.waiting import wait_until

SIZE = 60


@contextmanager
def started(arguments: Sequence[str], path: Path) -> Iterator[subprocess.Popen[str]]:
    """Start `python -m bench` with `path` as the only directory of programs; it must leave no process behind."""
    environ = clean_environment(PATH=str(path), BENCH_PEERS="")
    command = [sys.executable, "-m", "bench", *arguments]
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            left = kill_group(process.pid)
    assert not left, "it left processes behind"


def kill_group(leader: int) -> bool:
    """Kill the process group. Return False when it is empty."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def run(arguments: Sequence[str], path: Path) -> str:
    """Run it to its end and return its output."""
    with started(arguments, path) as process:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    return out


def rows(printed: str) -> Iterator[dict[str, str]]:
    """Yield the rows of the Markdown tables in `printed`, by column."""
    head: list[str] = []
    for line in printed.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            head = []
        elif not head:
            head = cells
        elif not line.startswith("|---"):
            yield dict(zip(head, cells, strict=True))


def test_paced_streams_through_the_gateway_arrive_without_defects(tmp_path: Path) -> None:
    printed = run(["paced", "--streams", "5", "--seconds", "0.5", "--repeat", "1", "--servers", "gateway,traefik"], tmp_path)
    [row] = rows(printed)
    assert row["server"] == "gateway"
    assert row["defects"] == "none"
    assert row["× gateway"] == "1.00"
    assert 30 < float(row["events/s"]) < 1000  # 100, more or less on a busy machine; flat out they would be many thousands
    assert float(row["CPU µs/event"]) > 0
    assert 0 < float(row["p50 ms"]) <= float(row["p99 ms"])
    assert "Not installed: traefik." in printed


def test_framer_prints_the_speed_of_each_part(tmp_path: Path) -> None:
    printed = list(rows(run(["framer", "--repeat", "1"], tmp_path)))
    assert [row["speed"].split()[1] for row in printed] == ["MB/s"] * 4 + ["events/s"] * 2
    assert all(int(row["speed"].split()[0].replace(",", "")) > 0 for row in printed)


def test_topics_are_published_to_and_replayed(tmp_path: Path) -> None:
    single, batches, replay = rows(run(["topics", "--events", "20000", "--repeat", "1"], tmp_path))
    for row in (single, batches, replay):
        assert float(row["events/s"].replace(",", "")) > 0
        assert float(row["CPU µs/event"]) > 0
    assert 0 < float(single["p50 ms"]) <= float(single["p99 ms"])
    assert replay["p50 ms"] == "–"
    assert replay["the producer's topics, 100 bytes of data"] == "replay of 20000 events"


def test_event_log_is_measured_by_itself_and_at_depth(tmp_path: Path) -> None:
    printed = list(rows(run(["log", "--events", "8000", "--repeat", "1"], tmp_path)))
    rates = [float(row["events/s"].replace(",", "")) for row in printed if "events/s" in row]
    first_reads = [(float(row["1,000 events"]), float(row["80,000 events"])) for row in printed if "events/s" not in row]
    assert len(rates) == 7
    assert min(rates) > 0
    assert len(first_reads) == 5
    assert all(shallow >= 0 and deep >= 0 for shallow, deep in first_reads)


def test_sigterm_ends_all_processes(tmp_path: Path) -> None:
    with started(["paced", "--streams", "5", "--seconds", "60", "--servers", "gateway"], tmp_path) as process:
        wait_until(lambda: {"bench.origin", "gateway", "bench.load"} <= modules_below(process.pid), "origin, gateway and load running")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM


def modules_below(pid: int) -> set[str]:
    """Return the modules that run as processes below `pid`."""
    commands = (Path(f"/proc/{child}/cmdline").read_bytes().decode().split("\0") for child in descendants(pid))
    return {command[2] for command in commands if command[1:2] == ["-m"]}


def test_unknown_server_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with started(["paced", "--servers", "ngimx"], tmp_path) as process:
        _, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "must be one of gateway, naive, nginx" in err


EVENTS = [render(number, SIZE) for number in range(5)]


@pytest.mark.parametrize("cut", [1, 7, SIZE, 1000])
def test_checker_finds_no_fault_in_whole_events_however_they_are_cut(cut: int) -> None:
    checker = Checker(SIZE)
    stream = b"".join([*EVENTS[:2], b":\n", *EVENTS[2:]])
    times = [sent for start in range(0, len(stream), cut) for sent in checker.feed(stream[start : start + cut])]
    assert (checker.events, checker.lost, checker.repeated, checker.corrupt) == (5, 0, 0, 0)
    assert not checker.within_event
    assert len(times) == 5
    assert times == sorted(times)


@pytest.mark.parametrize(
    ("stream", "faults"),
    [
        pytest.param([EVENTS[0], EVENTS[3]], (2, 0, 0), id="lost"),
        pytest.param([EVENTS[1]], (1, 0, 0), id="first lost"),
        pytest.param([EVENTS[0], EVENTS[1], EVENTS[1]], (0, 1, 0), id="repeated"),
        pytest.param([EVENTS[0], EVENTS[2], EVENTS[1]], (1, 1, 0), id="reordered"),
        pytest.param([EVENTS[0], EVENTS[1].replace(b"abc", b"abd"), EVENTS[2]], (0, 0, 1), id="altered"),
        pytest.param([EVENTS[0], EVENTS[1][:20] + EVENTS[1][21:], EVENTS[2]], (0, 0, 1), id="too short"),
        pytest.param([EVENTS[0], EVENTS[1].replace(b"data", b"dada"), EVENTS[2]], (0, 0, 1), id="other field"),
    ],
)
def test_checker_counts_each_fault(stream: list[bytes], faults: tuple[int, int, int]) -> None:
    checker = Checker(SIZE)
    checker.feed(b"".join(stream))
    assert (checker.lost, checker.repeated, checker.corrupt) == faults


def test_checker_detects_a_stream_that_ends_within_an_event() -> None:
    checker = Checker(SIZE)
    checker.feed(EVENTS[0] + EVENTS[1][:-1])
    assert checker.within_event


def test_events_of_one_write_are_http_chunks_of_their_own() -> None:
    checker = Checker(SIZE)
    times = []
    for chunk in render_chunks(0, 3, SIZE).split(b"3c\r\n")[1:]:
        assert len(chunk) == SIZE + 2
        times += checker.feed(chunk.removesuffix(b"\r\n"))
    assert (checker.events, checker.lost, checker.repeated, checker.corrupt) == (3, 0, 0, 0)
    assert len(times) == 1


def measured(cpu_us: float, **defects: int) -> Measurement:
    return Measurement(100, cpu_us, 0.5, 10, 1.0, 2.0, Counter(defects))


def test_table_has_medians_the_ratio_to_nginx_and_all_defects() -> None:
    results = {"gateway": [measured(60, lost=1), measured(50), measured(10, lost=2)], "nginx": [measured(40)], "caddy": []}
    gateway, nginx, caddy = rows(workload_table(Workload("paced", 1, SIZE), results))
    assert (gateway["CPU µs/event"], gateway["× nginx"], gateway["defects"]) == ("50.0", "1.25", "3 lost")
    assert (nginx["× nginx"], nginx["defects"]) == ("1.00", "none")
    assert caddy["defects"] == "not measured"
