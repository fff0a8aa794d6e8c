"""`python -m consumer verify` on clean logs and on others."""

import contextlib
import json
import pty
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from consumer import audit
from consumer.audit import Audit
from consumer.log import EventLog, Rotation
from consumer.record import Position, Record
from consumer.segment import list_segments
from consumer.upkeep import compress_closed
from consumer.verify import verify
from tests.kit.consumer import SOURCE, lines_of, record, run_command, segment
from tests.kit.stack import REPOSITORY, clean_environment

Capture = pytest.CaptureFixture[str]


def gap(number: int, **told: object) -> bytes:
    return Record("t", SOURCE, None, "gap", Position("e", number), gap=told).encode()


def log(directory: Path, *lines: bytes) -> Path:
    segment(directory, 1, b"".join(lines))
    return directory


def test_clean_log_is_summarized_with_status_0(tmp_path: Path) -> None:
    segment(tmp_path, 1, b"".join(lines_of(range(1, 5))))
    segment(tmp_path, 5, b"".join(lines_of(range(5, 7))))
    segment(tmp_path, 7, b"")
    compress_closed(tmp_path, threading.Event())
    outcome = run_command("verify", tmp_path)
    assert outcome.returncode == 0
    assert outcome.stderr == ""
    assert outcome.stdout.splitlines() == [
        "segments: 3",
        "events: 6",
        "gaps: 0",
        "duplicates: 0",
        "torn lines: 0",
        "damaged lines: 0",
        "misplaced lines: 0",
        "unreadable segments: 0",
        "positions: e-1 to e-6",
        "clean",
    ]


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ([record(1).encode(), gap(2, after="1", before="9", missed=7, reason="why")], "2: gap: after 1, before 9, missed 7, reason why"),
        (
            [record(1).encode(), gap(2, asked="e-1", first_retained="e-7", reason="why")],
            "2: gap: asked e-1, first_retained e-7, reason why",
        ),
        ([record(1).encode(), gap(2)], "2: gap: the source gave no details"),
        ([*lines_of([1, 2]), record(3, "1").encode()], "3: duplicate: ID '1' is already in line 1"),
        ([*lines_of([1, 2]), record(3).encode()[:-1]], "3: torn line: "),
        ([*lines_of([1, 2]), b"x"], "3: torn line: 1 bytes without a line end; the consumer removes them when it starts"),
        ([*lines_of([1]), b"\0\0\n", *lines_of([2])], "2: damaged line: Invalid JSON"),
        ([*lines_of([1]), b'{"data":""}\n', *lines_of([2])], "2: damaged line: received_at: Field required"),
        (lines_of([1, 2, 4]), "3: misplaced line: e-4 follows e-2: 1 lines are missing"),
        (lines_of([1, 3, 2]), "3: misplaced line: e-2 follows e-3: out of order"),
        ([*lines_of([1, 2]), record(2, "x").encode()], "3: misplaced line: e-2 follows e-2: out of order"),
        ([*lines_of([1]), *lines_of([2], epoch="f")], "2: misplaced line: f-2 follows e-1: lines of another log"),
        (lines_of([2, 3]), "1: misplaced line: the segment is named for line 1, its first line is e-2"),
    ],
)
def test_each_problem_is_printed_with_its_place_and_status_1(tmp_path: Path, capfd: Capture, lines: list[bytes], problem: str) -> None:
    assert verify(log(tmp_path, *lines)) == 1
    said = capfd.readouterr().out
    assert f"events-0000000000000001.jsonl:{problem}" in said
    assert "NOT CLEAN" in said


def test_lost_segment_is_a_hole_and_retention_is_not(tmp_path: Path, capfd: Capture) -> None:
    for first in (11, 21, 31):
        segment(tmp_path, first, b"".join(lines_of(range(first, first + 10))))
    assert verify(tmp_path) == 0
    assert "note: the 10 lines before them were removed (retention)" in capfd.readouterr().out
    list_segments(tmp_path)[1].path.unlink()
    assert verify(tmp_path) == 1
    assert "10 lines are missing" in capfd.readouterr().out


def test_torn_line_in_an_older_segment_is_found(tmp_path: Path, capfd: Capture) -> None:
    segment(tmp_path, 1, b"".join(lines_of(range(1, 3))) + b"torn")
    segment(tmp_path, 3, b"".join(lines_of(range(3, 5))))
    assert verify(tmp_path) == 1
    assert "torn lines: 1" in capfd.readouterr().out


@pytest.mark.parametrize("damage", [b"", b"no zstd at all", None])
def test_compressed_segment_that_is_damaged_is_found(tmp_path: Path, capfd: Capture, damage: bytes | None) -> None:
    segment(tmp_path, 1, b"".join(lines_of(range(1, 100))))
    segment(tmp_path, 100, b"".join(lines_of(range(100, 102))))
    compress_closed(tmp_path, threading.Event())
    path = list_segments(tmp_path)[0].path
    path.write_bytes(path.read_bytes()[:-10] if damage is None else damage)
    assert verify(tmp_path) == 1
    assert "unreadable segments: 1" in capfd.readouterr().out


def test_marked_repeat_and_reused_id_are_notes(tmp_path: Path, capfd: Capture) -> None:
    repeat = replace(record(2, "1"), repeat=True).encode()
    assert verify(log(tmp_path, record(1).encode(), repeat, record(3, "1", data="other").encode())) == 0
    said = capfd.readouterr().out
    assert "note: 1 events were sent twice by the source on one connection" in said
    assert "note: 1 events have the ID of an earlier, different event" in said


def test_events_without_ids_are_no_duplicates(tmp_path: Path) -> None:
    without = [record(1, None).encode(), record(2, None).encode(), *(replace(record(number), id="").encode() for number in (3, 4))]
    assert verify(log(tmp_path, *without)) == 0


def test_memory_is_bounded_by_the_window_of_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "WINDOW", 10)
    checked = Audit(log(tmp_path, *lines_of(range(1, 50)), record(50, "49").encode(), record(51, "1").encode()))
    problems = [problem.kind for _, _, found in checked.check() for problem in found]
    assert problems == ["duplicate"]
    assert len(checked._keys) <= 10
    assert len(checked._ids) <= 10


def test_unfinished_line_of_a_log_that_is_being_written_is_a_note(tmp_path: Path, capfd: Capture) -> None:
    with EventLog(tmp_path, Rotation(), source=SOURCE, window=10) as owned:
        owned.append(lines_of(range(1, 3)))
        owned.flush()
        path = list_segments(tmp_path)[0].path
        with path.open("ab") as file:
            file.write(b"half a li")
        assert verify(tmp_path) == 0
        assert "note: the last line was being written" in capfd.readouterr().out
    assert verify(tmp_path) == 1


def test_events_are_printed_on_request(tmp_path: Path) -> None:
    lines = [*lines_of([1, 2]), gap(3, reason="why")]
    outcome = run_command("verify", log(tmp_path, *lines), "--events")
    assert outcome.returncode == 1
    printed = outcome.stdout.splitlines()
    assert [json.loads(line)["position"] for line in printed if line.startswith("{")] == ["e-1", "e-2", "e-3"]
    assert printed[3] == "events-0000000000000001.jsonl:3: gap: reason why"


def test_directory_without_a_log_is_no_clean_log(tmp_path: Path) -> None:
    assert verify(tmp_path) == 2
    EventLog(tmp_path, Rotation(), source=SOURCE, window=10).close()
    assert verify(tmp_path) == 0


def all_of(terminal: int) -> bytes:
    """Return all output of a terminal whose other end is closed by now; it may come in several reads."""
    shown = b""
    with open(terminal, "rb", buffering=0) as screen, contextlib.suppress(OSError):  # Linux signals the end with EIO
        while part := screen.read(10_000):
            shown += part
    return shown


def test_progress_is_shown_on_a_terminal_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture) -> None:
    log(tmp_path, *lines_of(range(1, 100)))
    assert verify(tmp_path) == 0
    assert capfd.readouterr().err == ""
    ours, terminal = pty.openpty()
    with open(terminal, "w") as stderr:
        monkeypatch.setattr("sys.stderr", stderr)
        assert verify(tmp_path) == 0
    shown = all_of(ours).decode()
    assert "lines, 0% of the bytes checked, 0 problems" in shown
    assert shown.endswith("\r\x1b[K"), "and erased at the end"


def test_reader_of_the_output_may_close_it(tmp_path: Path) -> None:
    log(tmp_path, *lines_of(range(1, 20_000)))
    command = f"{sys.executable} -m consumer verify --events {tmp_path} | head -n 1"
    outcome = subprocess.run(command, shell=True, cwd=REPOSITORY, env=clean_environment(), capture_output=True, text=True, timeout=60)
    assert outcome.stderr == ""
    assert outcome.stdout.encode() == record(1).encode()
