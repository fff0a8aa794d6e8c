"""Compression and removal of closed segments."""

import asyncio
import os
import threading
from pathlib import Path

import pytest

from consumer.segment import Segment, SegmentUnreadable, compress, list_segments
from consumer.upkeep import Retention, Upkeep, compress_closed, remove_old
from tests.kit.consumer import eventually, lines_of, read_lines, segment

NOW = 1_000_000.0


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Return a log of four segments of ten lines, an hour apart, the newest an hour old."""
    for index in range(4):
        path = segment(tmp_path, 10 * index + 1, b"".join(lines_of(range(10 * index + 1, 10 * index + 11))))
        os.utime(path, (0, NOW - 3600 * (4 - index)))
    return tmp_path


def firsts(directory: Path) -> list[int]:
    return [one.first for one in list_segments(directory)]


def test_closed_segments_are_compressed_and_read_as_before(log: Path) -> None:
    assert compress_closed(log, threading.Event()) == 3
    assert [one.compressed for one in list_segments(log)] == [True, True, True, False]
    assert len(list(log.iterdir())) == 4
    assert read_lines(log) == lines_of(range(1, 41))
    assert compress_closed(log, threading.Event()) == 0


def test_compressed_segment_keeps_its_time_for_retention(log: Path) -> None:
    compress_closed(log, threading.Event())
    assert list_segments(log)[0].path.stat().st_mtime == NOW - 4 * 3600


def test_stopped_compression_leaves_the_segment_unchanged(log: Path) -> None:
    stopped = threading.Event()
    stopped.set()
    assert compress(list_segments(log)[0], stopped) is None
    assert len(list(log.iterdir())) == 4
    assert read_lines(log) == lines_of(range(1, 41))


def test_segment_that_is_compressed_while_it_is_listed_is_read_under_its_new_name(log: Path) -> None:
    listed = list_segments(log)
    compress_closed(log, threading.Event())
    assert [line for one in listed for line in one.lines()] == lines_of(range(1, 41))


@pytest.mark.parametrize("cut", [1, 4, 5, 20])
def test_truncated_compressed_segment_raises_after_its_readable_lines(log: Path, cut: int) -> None:
    compress_closed(log, threading.Event())
    [damaged, *_] = list_segments(log)
    damaged.path.write_bytes(damaged.path.read_bytes()[:-cut])
    with pytest.raises(SegmentUnreadable):
        list(damaged.lines())


def test_several_zstd_frames_in_a_row_are_one_segment(log: Path) -> None:
    compress_closed(log, threading.Event())
    first, second, *_ = list_segments(log)
    both = log / "events-0000000000000099.jsonl.zst"
    both.write_bytes(first.path.read_bytes() + second.path.read_bytes())
    assert list(Segment(99, both).lines()) == lines_of(range(1, 21))


@pytest.mark.parametrize(("hours", "kept"), [(0, [1, 11, 21, 31]), (5, [1, 11, 21, 31]), (3.5, [11, 21, 31]), (2.5, [21, 31]), (0.1, [31])])
def test_segments_are_removed_by_age_but_never_the_newest(log: Path, hours: float, kept: list[int]) -> None:
    removed = remove_old(log, Retention(max_age_seconds=3600 * hours), clock=lambda: NOW)
    assert firsts(log) == kept
    assert len(removed) == 4 - len(kept)


@pytest.mark.parametrize(("segments", "kept"), [(0, [1, 11, 21, 31]), (4, [1, 11, 21, 31]), (2.5, [21, 31]), (1.5, [31]), (0.1, [31])])
def test_segments_are_removed_by_size_but_never_the_newest(log: Path, segments: float, kept: list[int]) -> None:
    size = max(one.path.stat().st_size for one in list_segments(log))
    remove_old(log, Retention(max_bytes=int(size * segments)), clock=lambda: NOW)
    assert firsts(log) == kept


async def test_upkeep_works_when_a_segment_was_closed_and_stops_at_once(log: Path) -> None:
    rotated = asyncio.Event()
    upkeep = Upkeep(log, Retention(), rotated)
    running = asyncio.create_task(upkeep.run())
    await eventually(lambda: True if len(list(log.glob("*.zst"))) == 3 else None)
    segment(log, 41, b"".join(lines_of(range(41, 42))))
    rotated.set()
    await eventually(lambda: True if len(list(log.glob("*.zst"))) == 4 else None)
    upkeep.stop()
    async with asyncio.timeout(30):
        await running
