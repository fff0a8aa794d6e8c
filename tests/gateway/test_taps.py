"""What one who tails a stream is shown: each chunk, the blocks that it completed, and where they were cut."""

from collections.abc import Callable
from typing import Any

import pytest

from eventstream import Framer
from gateway.observe.dashboard.taps import Tail
from gateway.streams.stamping import stamp


class Stream:
    """A framer that may be tapped, as a relay or an event source is one."""

    def __init__(self) -> None:
        self.tap: Callable[[bytes, bytes, int], None] | None = None
        self.framer = Framer()

    def feed(self, *chunks: bytes) -> None:
        for chunk in chunks:
            blocks = self.framer.feed(chunk)
            if self.tap is not None:
                self.tap(chunk, blocks, self.framer.pending_bytes)


def drained(tail: Tail) -> dict[str, Any]:
    gathered = tail.drain()
    assert gathered is not None
    return gathered


def shown(*chunks: bytes) -> list[tuple[int, int, list[list[str]]]]:
    """Of each chunk its size, how many bytes wait behind it, and the parts of each block that it completed."""
    stream = Stream()
    tail = Tail(stream)
    stream.feed(*chunks)
    return [(record["chunk"], record["pending"], [block["parts"] for block in record["blocks"]]) for record in drained(tail)["chunks"]]


def test_block_is_shown_with_the_chunk_that_completed_it() -> None:
    assert shown(b"data: a\n\n", b"data: b\n\ndata: c\n\n") == [
        (9, 0, [["data: a\n\n"]]),
        (18, 0, [["data: b\n\n"], ["data: c\n\n"]]),
    ]


def test_block_is_shown_in_the_parts_that_chunks_brought() -> None:
    assert shown(b"data: a\n\nda", b"ta", b": b\n\ndata", b": c\n\n") == [
        (11, 2, [["data: a\n\n"]]),
        (2, 4, []),
        (9, 4, [["da", "ta", ": b\n\n"]]),
        (5, 0, [["data", ": c\n\n"]]),
    ]


def test_character_that_two_chunks_brought_is_shown_as_bytes() -> None:
    whole = "data: 七\n\n".encode()
    assert shown(whole[:7], whole[7:]) == [(7, 7, []), (4, 0, [["data: \\xe4", "\\xb8\\x83\n\n"]])]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_parts_are_the_chunks_wherever_a_stream_is_cut(end: bytes) -> None:
    whole = (b"data: a" + end + b"id: 1" + end + end) * 2
    for first in range(1, len(whole)):
        for second in range(first + 1, len(whole)):
            chunks = [whole[:first], whole[first:second], whole[second:]]
            records = shown(*chunks)
            parts = [part for _, _, blocks in records for block in blocks for part in block]
            assert "".join(parts).encode() == whole
            offsets = [sum(map(len, parts[:number])) for number in range(len(parts))]
            assert {first, second} <= {*offsets}, chunks


def test_stream_that_is_no_longer_tailed_has_no_tap() -> None:
    stream = Stream()
    one, other = Tail(stream), Tail(stream)
    stream.feed(b"data: a\n\n")
    one.close()
    one.close()
    stream.feed(b"data: b\n\n")
    assert len(drained(one)["chunks"]) == 1
    assert len(drained(other)["chunks"]) == 2
    assert other.drain() is None
    other.close()
    assert stream.tap is None


def test_tail_that_begins_within_a_block_shows_where_it_began() -> None:
    stream = Stream()
    stream.feed(b"data", b": ")
    tail = Tail(stream)
    stream.feed(b"a\n", b"\n")
    assert [record["blocks"] for record in drained(tail)["chunks"]] == [[], [{"parts": ["data: ", "a\n", "\n"], "size": 9}]]


def test_unfinished_block_of_a_lost_connection_leaves_no_cut_in_the_next() -> None:
    stream = Stream()
    tail = Tail(stream)
    stream.feed(b"da", b"ta")
    stream.framer = Framer()
    stream.feed(b"data: b\n\n")
    assert drained(tail)["chunks"][-1]["blocks"] == [{"parts": ["data: b\n\n"], "size": 9}]


def test_block_is_shown_as_the_gateway_sends_it_when_that_is_different() -> None:
    def sent_as(blocks: list[bytes]) -> list[bytes | None]:
        stamped = [stamp(block, "s", 1) for block in blocks]
        return [None if found is None else found[0] for found in stamped]

    stream = Stream()
    tail = Tail(stream, sent_as)
    stream.feed(b"data: a\n\nid: 7\ndata: b\n\n: hello\n\n")
    [record] = drained(tail)["chunks"]
    assert [block.get("sent", "the same") for block in record["blocks"]] == ["data: a\nid: s-1\n\n", "the same", None]


@pytest.mark.parametrize("per_chunk", [1, 1000], ids=["many chunks", "large chunks"])
def test_tail_that_is_not_taken_from_keeps_little_and_counts_the_rest(per_chunk: int) -> None:
    stream = Stream()
    tail = Tail(stream)
    for _ in range(10_000 // per_chunk):
        stream.feed(b"data: a\n\n" * per_chunk)
    gathered = drained(tail)
    kept = sum(len(record["blocks"]) for record in gathered["chunks"])
    assert 0 < kept <= 400
    assert kept + gathered["left_out_blocks"] == 10_000
    assert len(gathered["chunks"]) + gathered["left_out_chunks"] == 10_000 // per_chunk
    stream.feed(b"data: b\n\n")
    assert drained(tail) | {"chunks": 1} == {"chunks": 1, "left_out_chunks": 0, "left_out_blocks": 0}


def test_chunks_that_complete_nothing_are_counted_too_when_they_are_many() -> None:
    stream = Stream()
    tail = Tail(stream)
    stream.feed(*[b"d"] * 1_000)
    gathered = drained(tail)
    assert len(gathered["chunks"]) + gathered["left_out_chunks"] == 1_000
    assert len(gathered["chunks"]) <= 400
    stream.feed(b"\n\n")
    [record] = drained(tail)["chunks"]
    assert "".join(record["blocks"][0]["parts"]) == "d" * 1_000 + "\n\n"


def test_large_block_is_shown_by_its_beginning() -> None:
    stream = Stream()
    tail = Tail(stream)
    stream.feed(b"data: " + b"x" * 1_000_000 + b"\n\n")
    [block] = drained(tail)["chunks"][0]["blocks"]
    assert (block["size"], sum(map(len, block["parts"]))) == (1_000_008, 16_384)
