"""`python -m consumer tail`: the newest lines, and new ones, across rotation."""

import asyncio
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from consumer.log import EventLog, Rotation
from consumer.record import decode
from consumer.segment import list_segments
from consumer.tail import read_tail
from consumer.upkeep import compress_closed
from tests.consumer.replaying import Replay, replaying
from tests.kit.consumer import SOURCE, consuming, eventually, lines_of, record, run_command, segment
from tests.kit.stack import environment, service_command
from tests.kit.waiting import GUARD_SECONDS


@pytest.fixture(params=["plain", "compressed"])
def log(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Return a log of twenty lines in four segments."""
    for first in (1, 6, 11, 16):
        segment(tmp_path, first, b"".join(lines_of(range(first, first + 5))))
    if request.param == "compressed":
        compress_closed(tmp_path, threading.Event())
    return tmp_path


def newest(directory: Path, count: int) -> list[bytes | None]:
    return list(read_tail(directory, count=count, follow=False))


@pytest.mark.parametrize("count", [0, 1, 4, 5, 6, 12, 20, 30])
def test_newest_lines_are_yielded_across_segments(log: Path, count: int) -> None:
    assert newest(log, count) == lines_of(range(max(21 - count, 1), 21))


def test_incomplete_line_is_not_yielded(log: Path) -> None:
    with list_segments(log)[-1].path.open("ab") as file:
        file.write(record(21).encode()[:-1])
    assert newest(log, 2) == lines_of(range(19, 21))


def test_damaged_segment_is_skipped(log: Path) -> None:
    damaged = list_segments(log)[1].path
    if damaged.suffix == ".zst":
        damaged.write_bytes(b"no zstd")
        assert newest(log, 12) == [*lines_of(range(4, 6)), *lines_of(range(11, 21))]


def test_command_prints_the_newest_ten_lines_and_exits_without_follow(log: Path) -> None:
    outcome = run_command("tail", "--no-follow", log)
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert outcome.stdout.encode() == b"".join(lines_of(range(11, 21)))
    assert run_command("tail", "--no-follow", "-n", "2", log).stdout.encode() == b"".join(lines_of(range(19, 21)))


def take(tail: Iterator[bytes | None]) -> list[bytes]:
    """Return the lines that are available now."""
    taken = []
    while (line := next(tail)) is not None:
        taken.append(line)
    return taken


def small_segments(directory: Path) -> EventLog:
    return EventLog(directory, Rotation(max_bytes=3 * len(record(10).encode()), max_age_seconds=10**10), source=SOURCE, window=10)


def test_following_yields_each_line_once_through_rotation_and_compression(tmp_path: Path) -> None:
    with small_segments(tmp_path) as owned, closing(read_tail(tmp_path, count=0, follow=True)) as tail:
        assert take(tail) == []
        taken: list[bytes] = []
        for number in range(1, 41):
            owned.append(lines_of([number]))
            owned.flush()
            if number % 3 == 0:
                taken += take(tail)
            if number % 7 == 0:
                compress_closed(tmp_path, threading.Event())
        taken += take(tail)
    assert taken == lines_of(range(1, 41))


def test_follower_that_fell_behind_reads_compressed_segments(tmp_path: Path) -> None:
    with small_segments(tmp_path) as owned, closing(read_tail(tmp_path, count=10, follow=True)) as tail:
        owned.append(lines_of([1]))
        owned.flush()
        assert take(tail) == lines_of([1])
        owned.append(lines_of(range(2, 30)))
        owned.flush()
        compress_closed(tmp_path, threading.Event())
        assert take(tail) == lines_of(range(2, 30))


def test_torn_line_that_is_removed_is_never_yielded(tmp_path: Path) -> None:
    path = segment(tmp_path, 1, b"".join(lines_of(range(1, 3))))
    with closing(read_tail(tmp_path, count=10, follow=True)) as tail:
        assert take(tail) == lines_of(range(1, 3))
        path.write_bytes(path.read_bytes() + record(3, data="torn").encode()[:-5])
        assert take(tail) == []
        with small_segments(tmp_path) as owned:
            owned.append(lines_of([3]))
            owned.flush()
        assert take(tail) == lines_of([3])


def test_segment_that_a_listing_misses_while_it_is_compressed_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [segment(tmp_path, first, b"".join(lines_of(range(first, first + 5)))) for first in (1, 6, 11)]
    names = [path.name for path in paths]
    listings = [[names[0], names[2]], names, names]  # the first saw neither name of the second segment
    monkeypatch.setattr("os.listdir", lambda directory: listings.pop(0) if len(listings) > 1 else listings[0])
    assert newest(tmp_path, 15) == lines_of(range(1, 16))


async def test_command_follows_a_running_consumer_until_it_is_interrupted(tmp_path: Path) -> None:
    settings = {"CONSUMER_SEGMENT_MAX_BYTES": "3000"}
    async with replaying(Replay(200, interval=0.002)) as replay, consuming(tmp_path, replay.url, **settings) as consumer:
        consumer.read_in_background()
        await consumer.logs(5)
        following = await asyncio.create_subprocess_exec(
            *service_command("consumer", "tail", "-n", "100000", str(tmp_path)),
            env=environment("consumer", {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert following.stdout is not None
        assert following.stderr is not None
        printed: list[bytes] = []
        async with asyncio.timeout(GUARD_SECONDS):
            while len(printed) < 200:
                printed.append(await following.stdout.readline())
        assert [decode(line).id for line in printed] == [str(number) for number in range(1, 201)]
        following.send_signal(2)
        assert await asyncio.wait_for(following.wait(), GUARD_SECONDS) == 0
        assert await following.stderr.read() == b""
        await eventually(lambda: True if len(consumer.events) == 200 else None)
        assert await consumer.stop() == 0
