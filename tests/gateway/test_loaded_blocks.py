"""Stored blocks become the history that they came from, whatever they are and however the store cuts them into parts."""

import itertools
import math
from time import thread_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstream import Framer, split_blocks
from gateway.modes.resumable.loading import LoadedBlocks
from gateway.streams.history import READ_BYTES, UNLIMITED, History
from gateway.streams.stamping import read_id, read_stamp, stamp

STREAM = "0123456789abcdef" * 2

lines = st.sampled_from(
    ["data: x", "data", "data: " + "y" * 300, "id: 7", "id: own", "id", "idea: 1", "event: e", ":", "retry: 1", "\ufeffdata: z"]
)
blocks = st.tuples(st.lists(lines, min_size=1, max_size=4), st.sampled_from(["\n", "\r\n", "\r"]), st.integers(1, 3)).map(
    lambda drawn: (drawn[1].join(drawn[0]) + drawn[1] * (drawn[2] + 1)).encode()
)


def stamped(many: list[bytes]) -> list[bytes]:
    """Blocks as a stream keeps them."""
    kept: list[bytes] = []
    for block in many:
        found = stamp(block, STREAM, len(kept) + 1)
        if found is not None:
            kept.append(found[0])
    return kept


def history_of(stored: bytes) -> tuple[History, bytes]:
    """Return a history to which the blocks were appended one by one, and the unfinished block after them."""
    history, framer = History(UNLIMITED, clock=lambda: math.nan), Framer(max(len(stored), 1), keeps_mark=True)
    for block in split_blocks(framer.feed(stored)):
        id = read_id(block)
        own = read_stamp(id) if id else None
        history.append(block, None if own is not None and own[0] == STREAM else id)
    history.seal()
    return history, framer.flush()


def adopted(parts: list[bytes]) -> tuple[History, bytes]:
    loaded, history = LoadedBlocks(STREAM), History(UNLIMITED, clock=lambda: math.nan)
    for part in parts:
        loaded.take(part)
    for blocks in loaded.parts:
        history.adopt(blocks)
    history.seal()
    return history, loaded.flush()


def facts(history: History) -> tuple[object, ...]:
    found = [history.find(id) for id in ("7", "own", "", f"{STREAM}-1", "none")]
    return history.end, history.end_bytes, history.cost, found, [history.block(cursor) for cursor in range(1, history.end + 1)]


def read_all(history: History) -> bytes:
    data, cursor = b"", 0
    while cursor < history.end:
        part, cursor = history.read(cursor, history.end)
        data += part
    return data


@given(st.lists(blocks, max_size=30), st.lists(st.integers(0, 30), max_size=4), st.sampled_from([b"", b"data: unfinished"]))
def test_loaded_history_is_the_one_that_was_kept(many: list[bytes], cuts: list[int], tail: bytes) -> None:
    kept = stamped(many)
    edges = sorted({0, len(kept), *(min(cut, len(kept)) for cut in cuts)})
    parts = [b"".join(kept[begin:end]) for begin, end in itertools.pairwise(edges)]
    expected, rest = history_of(b"".join(kept) + tail)
    history, loaded_rest = adopted([*parts, tail])
    assert facts(history) == facts(expected)
    assert read_all(history) == b"".join(kept)
    assert loaded_rest == rest == tail


def test_parts_are_read_at_once_and_no_larger_than_reads_are() -> None:
    parts = [b"".join(stamped([b"data: %d\n\n" % number for number in range(20_000)])), b"data: %s\n\n" % (b"x" * 100_000), b"data: y\n\n"]
    history, _ = adopted(parts)
    assert history.end == 20_002
    cursor = 0
    while cursor < history.end:
        part, after = history.copy(cursor, history.end)
        assert len(part) <= READ_BYTES or after == cursor + 1
        cursor = after


@pytest.mark.parametrize("block", [b"data: x\n\n", b"data: x\r\n\r\n"])
def test_time_of_small_blocks_is_linear(block: bytes) -> None:
    def seconds(count: int) -> float:
        """Return the CPU time, because other processes must not count."""
        part = b"".join(stamped([block] * count))
        begun = thread_time()
        LoadedBlocks(STREAM).take(part)
        return thread_time() - begun

    assert min(seconds(100_000) for _ in range(3)) < 40 * min(seconds(10_000) for _ in range(3))
