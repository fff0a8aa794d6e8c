"""Blocks, comments and reconnection times in their order, however the stream is cut into chunks."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstream import BlockTooLarge, Parser
from eventstream.received import Received, UnfinishedLines

STREAM = b":one\n:two\nretry: 5\ndata: a\n\n:three\n\nid: 1\ndata: b\n: four\nretry: x\n\n\n:five\nretry: 7\ndata: lost"
TOLD = ["one", "two", ("a", 5), "three", "four", ("b", 5), "five"]
"""Each comment, and each event with the reconnection time then: a comment of a block is reported before its event."""


def follow(chunks: list[bytes]) -> list[object]:
    """Return what a reader gets that pops all blocks after each chunk."""
    told: list[object] = []
    parser = Parser(on_comment=told.append)
    received = Received(parser, 1000)
    for chunk in chunks:
        received.add(chunk)
        while (block := received.pop()) is not None:
            told += [(event.data, parser.reconnection_time) for event in parser.feed(block)]
        received.look_ahead()
    assert not received.look_ahead()
    assert received.newest_retry == parser.reconnection_time == 7
    return told


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_comments_are_reported_once_and_in_order_wherever_the_stream_is_cut(end: bytes) -> None:
    body = STREAM.replace(b"\n", end)
    assert follow([body]) == TOLD
    assert follow([body[at : at + 1] for at in range(len(body))]) == TOLD
    for first, second in itertools.combinations(range(len(body)), 2):
        assert follow([body[:first], body[first:second], body[second:]]) == TOLD


@given(st.lists(st.sampled_from([b":", b"a", b"\n", b"\r", b"\r\n"]), max_size=12), st.lists(st.integers(0, 16), max_size=4))
def test_unfinished_comments_equal_those_of_the_whole_block(parts: list[bytes], cuts: list[int]) -> None:
    body = b"".join(parts)
    lines, taken, block = UnfinishedLines(), [], bytearray()
    for begin, end in itertools.pairwise([0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]):
        block += body[begin:end]
        taken += lines.take(block)
    whole = body[: max(body.rfind(b"\n"), body.rfind(b"\r")) + 1]
    assert [line for line in taken if line.startswith(b":")] == [line for line in whole.splitlines() if line.startswith(b":")]


def test_error_of_a_block_over_the_limit_is_kept_until_after_the_good_blocks() -> None:
    received = Received(Parser(), 20)
    assert received.add(b"data: a\n\ndata: " + b"x" * 20) == b"data: a\n\n"
    assert received.pop() == b"data: a\n\n"
    assert isinstance(received.too_large, BlockTooLarge)
    assert received.pop() is None


def test_reprs_show_the_state() -> None:
    received = Received(Parser(), 100)
    received.add(b"data: a\n\n:b\nc")
    assert repr(received) == "<Received blocks=1 <Framer pending=4 max=100>>"
    lines = UnfinishedLines()
    lines.take(bytearray(b":b\nc"))
    assert repr(lines) == "<UnfinishedLines begin=3 searched=4>"
