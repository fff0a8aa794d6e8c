"""Files that services find when they start, with any damage: what is whole is read, all else is an error that says what to do."""

import asyncio
import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import zstandard
from hypothesis import strategies as st

from consumer.audit import Audit
from consumer.log import _first_received
from consumer.record import Position, Record, RecordError, decode
from consumer.recovery import recover
from consumer.segment import list_segments
from gateway.modes.resumable.sqlite_file import FILE as STREAMS
from gateway.modes.resumable.sqlite_store import SqliteStreamStore
from gateway.modes.resumable.store import COMPLETE, StoreError, StreamHead
from producer.log.event_log import LogError
from producer.log.sqlite_log import SqliteEventLog
from producer.log.sqlite_schema import FILE as EVENTS
from tests.fuzz.fuzzing import TARGET, fuzz, joined, mutated

pytestmark = TARGET

SOURCE = "http://127.0.0.1/"
LINES = [
    Record("2026-01-01T00:00:00.000000Z", SOURCE, f"e-{number}", "message", Position("abc", number), f"data {number}").encode()
    for number in range(1, 5)
]
PIECES = [
    b"{", b"}", b'"', b",", b":", b"\n", b"\r", b"\0", b"\xff", b"\\u0000", b"\\ud800", b"null", b"9" * 5000, b"[" * 3000, b'"gap":{}',
    b'"position":"abc-99"', b'"position":"-1"', b'"received_at":"0001-01-01"', b'"received_at":"9999-12-31T23:59:59-23:59"', b'"id":null',
    b"abc-2", b"abc-", b"e-", *LINES[:2],
]  # fmt: skip
CODED = [zstandard.compress(b"".join(LINES)), zstandard.compress(LINES[0]), zstandard.compress(b"")]
HEAD = StreamHead("0" * 32, "/", "POST", "/", b"c", b"b", "k", [("X", "y")], 1.0)
BLOCKS = b"id: 1\ndata: x\n\n" * 20
DAMAGE = st.lists(st.tuples(st.integers(0, 200_000), st.binary(min_size=1, max_size=4)), min_size=1, max_size=6)


def check_segments(directory: Path, texts: list[bytes], compressed: list[bytes]) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    for number, (text, ending) in enumerate([*((text, ".zst") for text in compressed), *((text, "") for text in texts)]):
        (directory / f"events-{4 * number + 1:016}.jsonl{ending}").write_bytes(text)
    for segment in list_segments(directory):
        if not segment.compressed:
            assert _first_received(segment.path)
    recovered = recover(directory, SOURCE, 100)
    again = recover(directory, SOURCE, 100)
    assert again.cut_bytes == 0
    assert (again.next_number, again.checkpoint, again.recent) == (recovered.next_number, recovered.checkpoint, recovered.recent)
    recovered.checkpoint.encode()
    audit = Audit(directory)
    lines = [line for _, line, _ in audit.check() if line]
    records = list(_records(lines))
    assert audit.lines == len(lines)
    if records and not audit.problems["unreadable segment"] and texts:
        assert recovered.next_number > records[-1].position.number or records[-1].position != max(
            record.position.number for record in records
        )


def _records(lines: list[bytes]) -> Iterator[Record]:
    for line in lines:
        with contextlib.suppress(RecordError):
            record = decode(line)
            assert decode(record.encode()) == record
            yield record


def _damage(file: Path, edits: list[tuple[int, bytes]], cut: int | None) -> None:
    text = bytearray(file.read_bytes())
    for at, piece in edits:
        text[at % len(text) : at % len(text) + len(piece)] = piece
    file.write_bytes(text if cut is None else text[: cut % len(text)])


def _fresh(directory: Path, whole: Path) -> Path:
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(whole, directory)
    return directory


async def keep_stream(directory: Path) -> None:
    async with await SqliteStreamStore.open(directory) as store:
        await store.create(HEAD)
        await store.append(HEAD.id, BLOCKS)
        await store.finish(HEAD.id, COMPLETE, "", 1e12)


async def find_stream(directory: Path) -> None:
    with contextlib.suppress(StoreError):
        async with await SqliteStreamStore.open(directory) as store:
            parts: list[bytes] = []
            found = await store.load(HEAD.id, parts.append)
            await store.find_key("/", b"c", "k")
            await store.find_event(HEAD, "1")
            await store.expire(1.0)
            assert found is None or found.state != COMPLETE or b"".join(parts)


async def keep_events(directory: Path) -> None:
    async with await SqliteEventLog.open(directory) as log:
        for number in range(5):
            await log.append("t", [b"data: %d\n\n" % number])


async def find_events(directory: Path) -> None:
    with contextlib.suppress(LogError):
        async with await SqliteEventLog.open(directory) as log:
            await log.read(0, log.last)
            await log.get(1)
            await log.first()
            await log.append("t", [b"data: x\n\n"])
            await log.trim()
            await log.drop("t")


def test_segments(tmp_path: Path) -> None:
    texts = mutated([b"".join(LINES), b"".join(LINES[:2]), LINES[3][:20]], PIECES, 4) | joined(PIECES, 8)
    coded = mutated(CODED, [b"\x28\xb5\x2f\xfd", b"\0", b"\xff" * 4], 3) | texts.map(zstandard.compress)
    fuzz(check_segments, st.just(tmp_path / "log"), st.lists(texts, max_size=2), st.lists(coded, max_size=2))


def test_kept_streams(tmp_path: Path) -> None:
    asyncio.run(keep_stream(tmp_path / "whole"))

    def check_kept_streams(edits: list[tuple[int, bytes]], cut: int | None) -> None:
        directory = _fresh(tmp_path / "damaged", tmp_path / "whole")
        _damage(directory / STREAMS, edits, cut)
        asyncio.run(find_stream(directory))

    fuzz(check_kept_streams, DAMAGE, st.none() | st.integers(0, 200_000), examples=30, shrinks=False)
    assert os.path.exists(tmp_path / "whole" / STREAMS)


def test_event_log(tmp_path: Path) -> None:
    asyncio.run(keep_events(tmp_path / "whole"))

    def check_event_log(edits: list[tuple[int, bytes]], cut: int | None) -> None:
        directory = _fresh(tmp_path / "damaged", tmp_path / "whole")
        _damage(directory / EVENTS, edits, cut)
        asyncio.run(find_events(directory))

    fuzz(check_event_log, DAMAGE, st.none() | st.integers(0, 200_000), examples=30, shrinks=False)
