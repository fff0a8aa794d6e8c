"""The measurement of mode resumable runs, and accepts events with IDs."""

from pathlib import Path

from bench.events import Checker, render
from tests.bench.test_bench import run

SIZE = 60


def test_both_modes_are_measured_and_streams_are_kept(tmp_path: Path) -> None:
    out = run(["resumable", "--streams=5", "--kept=60", "--seconds=0.3", "--repeat=1"], tmp_path)
    direct, resumable = (line.split("|") for line in out.splitlines() if line.startswith("| gateway, "))
    assert (direct[1].strip(), resumable[1].strip()) == ("gateway, direct", "gateway, resumable")
    assert {direct[-2].strip(), resumable[-2].strip()} == {"none"}
    [kept] = [line.split("|") for line in out.splitlines() if "MAX_KEPT_BYTES" in line]
    served, asked = kept[-2].split(" of ")
    assert int(served) == int(asked) > 0


def test_id_after_the_data_of_an_event_is_no_defect_but_changed_data_is() -> None:
    checker = Checker(SIZE)
    assert len(checker.feed(render(0, SIZE)[:-1] + b"id: a-1\n\n")) == 1
    assert checker.corrupt == 0
    checker.feed(render(1, SIZE)[:-2] + b"x\nid: a-2\n\n")
    assert checker.corrupt == 1
