"""The durable log: appending, rotation, ownership, and recovery after a crash."""

import fcntl
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from consumer.log import EventLog, LogInUse, Rotation, is_owned
from consumer.recovery import lines_backwards, recover
from consumer.segment import Segment, compress, list_segments
from tests.kit.consumer import REPOSITORY, SOURCE, assert_clean, lines_of, read_lines, record, segment


def open_log(directory: Path, *, max_bytes: int = 10**6, max_age_seconds: float = 10**10, sync_seconds: float = 0) -> EventLog:
    return EventLog(directory, Rotation(max_bytes, max_age_seconds, sync_seconds), source=SOURCE, window=100)


def write(directory: Path, numbers: range, *, max_age_seconds: float = 10**10) -> None:
    with open_log(directory, max_age_seconds=max_age_seconds) as log:
        assert log.recovered.next_number == numbers.start
        log.append(lines_of(numbers))
        assert log.flush(sync=True) == lines_of(numbers)


def test_flush_returns_the_durable_lines_and_the_next_run_continues_after_them(tmp_path: Path) -> None:
    write(tmp_path, range(1, 4))
    write(tmp_path, range(4, 6))
    assert read_lines(tmp_path) == lines_of(range(1, 6))
    assert recover(tmp_path, SOURCE, 10).checkpoint == "5"


def test_new_log_has_a_new_epoch_and_no_checkpoint(tmp_path: Path) -> None:
    first, second = recover(tmp_path, SOURCE, 10), recover(tmp_path, SOURCE, 10)
    assert first.epoch != second.epoch
    assert (first.next_number, first.checkpoint, first.recent) == (1, "", [])


def test_log_creates_its_directory(tmp_path: Path) -> None:
    write(tmp_path / "a" / "b", range(1, 2))


def test_second_owner_is_refused_until_the_first_leaves(tmp_path: Path) -> None:
    with open_log(tmp_path):
        assert is_owned(tmp_path)
        with pytest.raises(LogInUse, match="another consumer writes this log"):
            open_log(tmp_path)
    assert not is_owned(tmp_path)
    open_log(tmp_path).close()


def test_checking_whether_a_log_is_owned_does_not_keep_a_consumer_from_starting(tmp_path: Path) -> None:
    open_log(tmp_path).close()
    looking = os.open(tmp_path / "consumer.lock", os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    leave = threading.Timer(0.15, os.close, [looking])
    leave.start()
    open_log(tmp_path).close()
    leave.join()


@pytest.mark.parametrize("max_bytes", [1, 140, 150, 400, 1000])
def test_segments_are_rotated_by_size_and_hold_every_line_once(tmp_path: Path, max_bytes: int) -> None:
    with open_log(tmp_path, max_bytes=max_bytes) as log:
        for begin in (1, 4, 5, 11):
            end = {1: 4, 4: 5, 5: 11, 11: 21}[begin]
            log.append(lines_of(range(begin, end)))
            log.flush()
        rotations = log.rotations
    segments = list_segments(tmp_path)
    assert len(segments) == rotations + 1
    assert read_lines(tmp_path) == lines_of(range(1, 21))
    assert all(one.path.stat().st_size <= max(max_bytes, len(record(20).encode())) for one in segments)
    assert_clean(tmp_path)


def test_segment_is_rotated_when_its_first_line_is_old(tmp_path: Path) -> None:
    write(tmp_path, range(1, 3))  # the lines say that they came on 2 January 2026
    write(tmp_path, range(3, 4), max_age_seconds=time.time())
    assert len(list_segments(tmp_path)) == 1
    write(tmp_path, range(4, 6), max_age_seconds=3600)
    assert [one.first for one in list_segments(tmp_path)] == [1, 4]


def test_lines_wait_for_the_interval_to_be_durable_and_sync_does_not(tmp_path: Path) -> None:
    with open_log(tmp_path, sync_seconds=3600) as log:
        log.append(lines_of(range(1, 3)))
        assert log.flush() == []
        assert read_lines(tmp_path) == lines_of(range(1, 3)), "they are written"
        log.append(lines_of(range(3, 4)))
        assert log.flush(sync=True) == lines_of(range(1, 4))


def test_log_continues_in_a_new_segment_when_the_newest_was_removed_by_hand(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        log.append(lines_of(range(1, 3)))
        log.flush()
        list_segments(tmp_path)[0].path.unlink()
        log.append(lines_of(range(3, 5)))
        with pytest.raises(FileNotFoundError, match="was removed while it was written"):
            log.flush()
        assert log.flush() == lines_of(range(3, 5))
    assert read_lines(tmp_path) == lines_of(range(3, 5))


def test_torn_last_line_is_removed_wherever_the_crash_came(tmp_path: Path) -> None:
    whole = b"".join(lines_of(range(1, 3)))
    last = record(3, data="七夕 torn").encode()
    for cut in range(len(last)):
        directory = tmp_path / str(cut)
        path = segment(directory, 1, whole + last[:cut])
        with open_log(directory) as log:
            assert (log.recovered.next_number, log.recovered.checkpoint, log.recovered.cut_bytes) == (3, "2", cut)
            assert path.read_bytes() == whole
            log.append([last])
            log.flush()
        assert read_lines(directory) == [*lines_of(range(1, 3)), last]


@pytest.mark.parametrize("tail", [b"\0" * 5000, b"\0" * 100 + b"\n", b"half a page\n\0\0", b"\n", b"\n\n", b"{}\n"])
def test_end_that_a_power_cut_damaged_is_removed(tmp_path: Path, tail: bytes) -> None:
    path = segment(tmp_path, 1, b"".join(lines_of(range(1, 4))) + tail)
    recovered = recover(tmp_path, SOURCE, 10)
    assert (recovered.checkpoint, recovered.cut_bytes) == ("3", len(tail))
    assert path.read_bytes() == b"".join(lines_of(range(1, 4)))


def test_torn_only_line_leaves_an_empty_log(tmp_path: Path) -> None:
    segment(tmp_path, 1, record(1).encode()[:-1])
    write(tmp_path, range(1, 3))
    assert read_lines(tmp_path) == lines_of(range(1, 3))


def test_damage_in_the_middle_of_the_log_stays_for_verify_and_the_log_continues(tmp_path: Path) -> None:
    path = segment(tmp_path, 1, record(1).encode() + b"damage\n" + record(3).encode())
    write(tmp_path, range(4, 5))
    assert path.read_bytes() == record(1).encode() + b"damage\n" + b"".join(lines_of(range(3, 5)))


def test_empty_newest_segment_is_used(tmp_path: Path) -> None:
    segment(tmp_path, 1, b"".join(lines_of(range(1, 4))))
    segment(tmp_path, 4, b"")
    write(tmp_path, range(4, 6))
    assert [one.first for one in list_segments(tmp_path)] == [1, 4]
    assert_clean(tmp_path)


def compressed(directory: Path, first: int, content: bytes) -> Path:
    compress(Segment(first, segment(directory, first, content)), threading.Event())
    [path] = directory.glob(f"*{first:016}.jsonl.zst")
    return path


def test_log_whose_segments_are_all_compressed_continues_in_a_new_one(tmp_path: Path) -> None:
    compressed(tmp_path, 1, b"".join(lines_of(range(1, 4))))
    with open_log(tmp_path) as log:
        assert log.recovered.checkpoint == "3"
        assert [seen.id for seen in log.recovered.recent] == ["1", "2", "3"]
    write(tmp_path, range(4, 5))
    assert [one.path.name for one in list_segments(tmp_path)] == ["events-0000000000000001.jsonl.zst", "events-0000000000000004.jsonl"]
    assert read_lines(tmp_path) == lines_of(range(1, 5))


def test_compressed_copy_beside_its_segment_and_unfinished_copies_are_removed(tmp_path: Path) -> None:
    copy = compressed(tmp_path, 1, b"".join(lines_of(range(1, 4))))
    plain = segment(tmp_path, 1, b"".join(lines_of(range(1, 4))))
    unfinished = tmp_path / "events-0000000000000001.jsonl.zst.tmp"
    unfinished.write_bytes(b"begun")
    (tmp_path / "notes.txt").write_text("not ours")
    assert read_lines(tmp_path) == lines_of(range(1, 4)), "even before, nothing counts twice"
    recover(tmp_path, SOURCE, 10)
    assert plain.exists()
    assert not copy.exists()
    assert not unfinished.exists()
    assert (tmp_path / "notes.txt").exists()


def test_checkpoint_is_found_in_a_compressed_segment_before_lines_without_one(tmp_path: Path) -> None:
    compressed(tmp_path, 1, b"".join(lines_of(range(1, 4))))
    compressed(tmp_path, 4, b"".join(lines_of(range(4, 8), id=None)))
    segment(tmp_path, 8, b"".join(lines_of(range(8, 10), id=None)))
    assert recover(tmp_path, SOURCE, 1).checkpoint == "3"


@pytest.mark.parametrize(("id", "last_event_id", "checkpoint"), [("5", None, "5"), ("", None, ""), (None, "8", "8"), (None, None, "1")])
def test_checkpoint_is_that_of_the_newest_line_with_one(tmp_path: Path, id: str | None, last_event_id: str | None, checkpoint: str) -> None:
    segment(tmp_path, 1, record(1).encode() + replace(record(2), id=id, last_event_id=last_event_id).encode())
    assert recover(tmp_path, SOURCE, 10).checkpoint == checkpoint


def test_ids_of_another_source_are_neither_sent_nor_taken_for_repeats(tmp_path: Path) -> None:
    write(tmp_path, range(1, 4))
    with EventLog(tmp_path, Rotation(), source="http://elsewhere/", window=10) as log:
        assert (log.recovered.checkpoint, log.recovered.recent, log.recovered.next_number) == ("", [], 4)
        assert log.recovered.other_source == SOURCE


def test_only_as_much_of_the_log_is_remembered_as_the_window_holds(tmp_path: Path) -> None:
    compressed(tmp_path, 1, b"".join(lines_of(range(1, 30))))
    segment(tmp_path, 30, b"".join(lines_of(range(30, 40))))
    assert [seen.id for seen in recover(tmp_path, SOURCE, 5).recent] == [str(number) for number in range(35, 40)]
    assert [seen.id for seen in recover(tmp_path, SOURCE, 15).recent] == [str(number) for number in range(25, 40)]
    assert len(recover(tmp_path, SOURCE, 100).recent) == 39


def test_damaged_compressed_segment_is_reported_and_the_rest_counts(tmp_path: Path) -> None:
    path = compressed(tmp_path, 1, b"".join(lines_of(range(1, 30))))
    path.write_bytes(path.read_bytes()[:-20])
    segment(tmp_path, 30, b"".join(lines_of(range(30, 32))))
    recovered = recover(tmp_path, SOURCE, 100)
    assert [seen.id for seen in recovered.recent][-2:] == ["30", "31"]
    assert len(recovered.unreadable) == 1


def test_unreadable_newest_segment_is_kept_and_the_log_continues_after_it(tmp_path: Path) -> None:
    path = compressed(tmp_path, 5, b"".join(lines_of(range(5, 30))))
    path.write_bytes(b"no zstd")
    for _ in range(2):
        with open_log(tmp_path) as log:
            number = log.recovered.next_number
            assert number > 5
            log.append(lines_of([number]))
            log.flush()
    assert path.read_bytes() == b"no zstd"


def test_readable_part_of_a_damaged_newest_segment_counts(tmp_path: Path) -> None:
    path = compressed(tmp_path, 1, b"".join(lines_of(range(1, 4))))
    path.write_bytes(path.read_bytes()[:-1])  # a part of the checksum
    with open_log(tmp_path) as log:
        assert (log.recovered.next_number, log.recovered.checkpoint, len(log.recovered.unreadable)) == (4, "3", 1)


@pytest.mark.parametrize("length", [0, 1, 7, 65_534, 65_535, 65_536, 65_537, 200_000])
def test_lines_are_read_backwards_wherever_the_pieces_are_cut(tmp_path: Path, length: int) -> None:
    for lines in ([b"x" * length], [b"a", b"x" * length, b""], [b"", b"", b"x" * length, b"b"], [b"x" * length, b"y" * length]):
        for end in (b"\n", b""):
            content = b"\n".join(lines) + end
            path = tmp_path / "lines"
            path.write_bytes(content)
            found = list(lines_backwards(path, len(content)))
            assert [line for _, line in reversed(found)] == content.splitlines(keepends=True)
            assert all(content[at:].startswith(line) for at, line in found)


def test_crash_at_any_system_call_loses_and_duplicates_no_event(tmp_path: Path) -> None:
    script = REPOSITORY / "tests" / "consumer" / "crash_points.py"
    outcome = subprocess.run([sys.executable, script, tmp_path], cwd=REPOSITORY, capture_output=True, text=True, timeout=110)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    crashes = int(outcome.stdout.split()[0])
    assert crashes > 100
