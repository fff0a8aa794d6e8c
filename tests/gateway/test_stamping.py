"""IDs that the gateway gives to events."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventstream import Parser, split_blocks
from gateway.streams.stamping import read_stamp, stamp, stamp_plain

STREAM = "0123456789abcdef" * 2
STAMP = b"id: %b-7\n" % STREAM.encode()


@pytest.mark.parametrize(
    ("block", "stamped"),
    [
        (b"data: x\n\n", b"data: x\n" + STAMP + b"\n"),
        (b"data: x\r\n\r\n", b"data: x\r\n" + STAMP + b"\r\n"),
        (b"data: x\r\r", b"data: x\r" + STAMP + b"\r"),
        (b"data: x\n\r\n", b"data: x\n" + STAMP + b"\r\n"),
        (b"data: x\r\n\n", b"data: x\r\n" + STAMP + b"\n"),
        (b"data: x\r\n\r", b"data: x\r\n" + STAMP + b"\r"),
        (b"data: x\r\r\n", b"data: x\r" + STAMP + b"\r\n"),
        (b"data: x\n\r", b"data: x\n" + STAMP + b"\r"),
        (b"data\n\n", b"data\n" + STAMP + b"\n"),
        (b"data:\n\n", b"data:\n" + STAMP + b"\n"),
        (b"event: e\ndata\n\n", b"event: e\ndata\n" + STAMP + b"\n"),
        (b": c\nevent: e\ndata: x\ndata:\n\n", b": c\nevent: e\ndata: x\ndata:\n" + STAMP + b"\n"),
        (b"data: id: 5\nidea: 6\n\n", b"data: id: 5\nidea: 6\n" + STAMP + b"\n"),
        ("data: \u2028id: 5\n\n".encode(), "data: \u2028id: 5\n".encode() + STAMP + b"\n"),
        (b"data: x\nid: a\0b\n\n", b"data: x\nid: a\0b\n" + STAMP + b"\n"),
        (b"id: a\0\r\ndata: x\r\n\r\n", b"id: a\0\r\ndata: x\r\n" + STAMP + b"\r\n"),
        (b"data: x\n\n\n\n", b"data: x\n" + STAMP + b"\n"),
        (b"data: x\n\n\n\r\n", b"data: x\n" + STAMP + b"\n"),
        (b"data: x\n\r\n\n", b"data: x\n" + STAMP + b"\r\n"),
    ],
)
def test_event_without_id_gets_one_as_its_last_line_and_ends_with_one_blank_line(block: bytes, stamped: bytes) -> None:
    assert stamp(block, STREAM, 7) == (stamped, None)
    [event], [before] = Parser().feed(stamped), Parser().feed(block)
    assert (event.type, event.data, event.last_event_id) == (before.type, before.data, f"{STREAM}-7")


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize(
    ("lines", "id"),
    [
        ([b"id: a", b"data: x"], "a"),
        ([b"id:a", b"data: x"], "a"),
        ([b"id:  a ", b"data: x"], " a "),
        ([b"data: x", b"id: a", b"id: b"], "b"),
        ([b"data: x", b"id: a", b"id: b\0"], "a"),
        ([b"data: x", b"id"], ""),
        ([b"data: x", b"id:"], ""),
        ([b"id: \xc3\xa4"], "ä"),
        ([b"id: 5"], "5"),
        ([b"retry: 5"], None),
        ([b"event: e"], None),
        ([b"id: a\0"], None),
        ([b": c", b"retry: 5"], None),
    ],
)
def test_block_with_an_id_of_its_own_or_with_fields_but_no_data_stays(lines: list[bytes], end: bytes, id: str | None) -> None:
    block = end.join([*lines, b"", b""])
    assert stamp(block, STREAM, 7) == (block, id)


@pytest.mark.parametrize("block", [b"\n", b"\r\n", b": comment\n\n", b":\r\r", b": data: x\n: id: 3\n\n", b"database: x\nidea: y\n\n"])
def test_block_with_nothing_that_a_client_looks_at_is_none(block: bytes) -> None:
    assert stamp(block, STREAM, 7) is None


PARTS = (b"data: x", b"data", b"data:", b"event: e", b"id: a", b"id", b": c", b"idea: y", b" ", b"\n", b"\n", b"\n\n", b"\r")


@settings(max_examples=300)
@given(st.lists(st.sampled_from(PARTS), max_size=12), st.integers(1, 10**12))
def test_plain_blocks_are_stamped_together_as_each_would_be_by_itself(parts: list[bytes], number: int) -> None:
    blocks = b"".join(parts) + b"\n\n"
    together = stamp_plain(blocks, b"id: %b-" % STREAM.encode(), number)
    if together is not None:
        assert [(block, None) for block in together] == [
            stamp(block, STREAM, place) for place, block in enumerate(split_blocks(blocks), number)
        ]


@pytest.mark.parametrize(
    ("blocks", "count"),
    [
        (b"data: x\n\n", 1),
        (b"event: e\ndata: x\n\n", 1),
        (b": c\ndata: x\ndata: y\n\ndata:\n\nretry: 5\ndata: z\n\n", 3),
        (b"data: x\r\n\r\n", None),
        (b"data: x\nid: 5\n\n", None),
        (b"data: x\n\nid\ndata: x\n\n", None),
        (b"data: x\n\n\ndata: x\n\n", None),
        (b"data: x\n\n: c\n\n", None),
        (b"\n", None),
    ],
)
def test_usual_blocks_are_plain_and_odd_ones_are_left_to_a_closer_look(blocks: bytes, count: int | None) -> None:
    together = stamp_plain(blocks, b"id: s-", 1)
    assert (None if together is None else len(together)) == count


def test_stamp_can_be_read_and_other_ids_are_none() -> None:
    assert read_stamp(f"{STREAM}-7") == (STREAM, 7)
    assert [read_stamp(id) for id in ("", "7", f"{STREAM}-", f"{STREAM}-x", f"{STREAM}-7 ", f"{STREAM[1:]}-7")] == [None] * 6
