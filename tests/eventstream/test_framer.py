"""Framer: whole blocks, no byte altered, wherever the chunks were cut."""

import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from eventstream import BlockTooLarge, Framer, count_blocks, split_blocks
from tests.eventstream.reference import BYTE_ORDER_MARK, LINE_END_NAMES, LINE_ENDS, PLACES, STREAMS, cut_at, cut_in_every_way, naive_blocks

# The blocks of a stream, and the unfinished rest after them.
CASES = {
    "one block": (b"data: a\n\n", b""),
    "two blocks": (b"data: a\n\nid: 2\ndata: b\n\n", b""),
    "several blank lines between blocks": (b"data: a\n\n\n\ndata: b\n\n", b""),
    "blank lines in front": (b"\n\n\ndata: a\n\n", b""),
    "nothing but blank lines": (b"\n\n\n", b""),
    "a block without data": (b"id: 1\n\n", b""),
    "comments": (b": ping\n\n:\ndata: a\n\n", b""),
    "an unfinished line": (b"data: a\n\n", b"data: lost"),
    "an unfinished block": (b"data: a\n\n", b"id: 2\ndata: lost\n"),
    "no block at all": (b"", b"data: lost\n"),
    "a line end alone": (b"\n", b""),
    "text that is not UTF-8": (b"data: \xff\xfe\xe4\n\n", b""),
}


def feed_all(framer: Framer, chunks: list[bytes]) -> bytes:
    return b"".join([framer.feed(chunk) for chunk in chunks])


def feed_until_too_large(framer: Framer, chunks: list[bytes]) -> tuple[bytes, BlockTooLarge | None]:
    given = b""
    try:
        for chunk in chunks:
            given += framer.feed(chunk)
            assert framer.pending_bytes <= framer.max_block_bytes
    except BlockTooLarge as error:
        return given + error.complete, error
    return given, None


@pytest.mark.parametrize("line_end", LINE_ENDS, ids=LINE_END_NAMES)
@pytest.mark.parametrize(("blocks", "unfinished"), CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("mark", [b"", BYTE_ORDER_MARK], ids=["bare", "with byte order mark"])
def test_whole_blocks_are_returned_wherever_the_chunks_are_cut(blocks: bytes, unfinished: bytes, line_end: bytes, mark: bytes) -> None:
    blocks, unfinished = blocks.replace(b"\n", line_end), unfinished.replace(b"\n", line_end)
    for chunks in cut_in_every_way(mark + blocks + unfinished):
        framer = Framer()
        assert feed_all(framer, chunks) == blocks
        assert framer.pending_bytes == len(unfinished)
        assert framer.flush() == unfinished
        assert framer.pending_bytes == 0
        keeping = Framer(keeps_mark=True)
        assert feed_all(keeping, chunks) + keeping.flush() == mark + blocks + unfinished


@pytest.mark.parametrize("stream", [b"a\r\n\n", b"a\n\r\n", b"a\n\r", b"a\r\r\n", b"a\r\n\r", b"a\r\r", b"a\n\n\r\n", b"a\r\n\rb\r\n\n"])
def test_mixed_line_ends_make_blank_lines_wherever_the_chunks_are_cut(stream: bytes) -> None:
    for chunks in cut_in_every_way(stream):
        assert feed_all(Framer(), chunks) == stream


@pytest.mark.parametrize("stream", [b"a\r\nb\r\n", b"a\rb\r", b"a\r\n", b"a\n", b"a\r"])
def test_line_ends_without_a_blank_line_end_no_block(stream: bytes) -> None:
    for chunks in cut_in_every_way(stream):
        framer = Framer()
        assert feed_all(framer, chunks) == b""
        assert framer.pending_bytes == len(stream)


def test_lone_cr_at_the_end_of_a_chunk_ends_the_block_at_once_and_its_lf_is_returned_alone() -> None:
    framer = Framer()
    assert framer.feed(b"data: a\r\n\r") == b"data: a\r\n\r"
    assert framer.feed(b"\n") == b"\n"
    assert framer.feed(b"data: b\r\n\r") == b"data: b\r\n\r"
    assert framer.feed(b"\ndata: c") == b"\n"
    assert framer.feed(b"\r\n\r\n") == b"data: c\r\n\r\n"


def test_lf_that_completes_a_crlf_in_the_next_chunk_is_no_blank_line() -> None:
    framer = Framer()
    assert framer.feed(b"data: a\r") == b""
    assert framer.feed(b"\ndata: b") == b""
    assert framer.feed(b"\r") == b""
    assert framer.feed(b"\n") == b""
    assert framer.feed(b"\r") == b"data: a\r\ndata: b\r\n\r"


def test_byte_order_mark_is_dropped_once_and_only_in_front() -> None:
    for chunks in cut_in_every_way(BYTE_ORDER_MARK * 2 + b"data: a\n\n" + BYTE_ORDER_MARK + b"\n\n"):
        assert feed_all(Framer(), chunks) == BYTE_ORDER_MARK + b"data: a\n\n" + BYTE_ORDER_MARK + b"\n\n"


@pytest.mark.parametrize("head", [b"\xef\n\n", b"\xef\xbb\n\n", b"\xef\xbb:\n\n"])
def test_bytes_that_only_begin_like_a_byte_order_mark_are_kept(head: bytes) -> None:
    for chunks in cut_in_every_way(head):
        assert feed_all(Framer(), chunks) == head


@pytest.mark.parametrize("head", [BYTE_ORDER_MARK[:1], BYTE_ORDER_MARK[:2]])
@pytest.mark.parametrize("keeps_mark", [False, True])
def test_stream_that_ends_within_a_byte_order_mark_has_those_bytes_unfinished(head: bytes, keeps_mark: bool) -> None:
    framer = Framer(keeps_mark=keeps_mark)
    assert framer.feed(head) == b""
    assert framer.flush() == head


@pytest.mark.parametrize("come", range(8))
def test_byte_order_mark_that_is_held_back_can_be_dropped_until_it_was_returned(come: int) -> None:
    """Of two marks only the first is dropped: the one that a reader would have stripped."""
    stream = BYTE_ORDER_MARK * 2 + b"data: a\n\n"
    framer = Framer(keeps_mark=True)
    assert framer.feed(stream[:come]) == b""
    framer.drop_mark()
    assert framer.feed(stream[come:]) == stream[3:]


def test_empty_chunks_mean_nothing() -> None:
    assert feed_all(Framer(), [b"", b"\xef", b"", b"\xbb\xbf", b"", b"data: a\n", b"", b"\n", b""]) == b"data: a\n\n"


@pytest.mark.parametrize("line_end", LINE_ENDS, ids=LINE_END_NAMES)
def test_block_of_the_limit_passes_and_one_byte_more_does_not(line_end: bytes) -> None:
    good = b"data: a" + line_end + line_end
    exact = b"data: " + b"x" * 20 + line_end + line_end
    limit = len(b"data: " + b"x" * 20 + line_end) + 1  # up to the byte that makes the last line blank
    for chunks in cut_in_every_way(good + exact):
        assert feed_all(Framer(limit), chunks) == good + exact
    for chunks in cut_in_every_way(good + exact + good):
        given, error = feed_until_too_large(Framer(limit - 1), chunks)
        assert given == good
        assert error is not None
        assert error.limit == limit - 1
        assert error.size >= limit
        assert str(error) == f"event block reached {error.size} bytes, limit is {limit - 1}"


def test_many_small_blocks_in_one_chunk_do_not_exceed_the_limit() -> None:
    assert Framer(10).feed(b"data: a\n\n" * 100) == b"data: a\n\n" * 100


def test_memory_held_back_is_that_of_the_bytes_however_small_their_chunks() -> None:
    framer, size = Framer(), 64 * 1024
    tracemalloc.start()
    try:
        for _ in range(size // 2):
            framer.feed(bytes(2))  # a new object each time, as from a socket
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert framer.pending_bytes == size
    assert held < 2 * size


def test_limit_must_leave_room_for_a_byte() -> None:
    with pytest.raises(ValueError, match="max_block_bytes is 0, must be at least 1"):
        Framer(0)


def test_repr_shows_the_bytes_held_back() -> None:
    framer = Framer(100)
    framer.feed(b"data")
    assert repr(framer) == "<Framer pending=4 max=100>"


@given(STREAMS, PLACES, st.integers(1, 60))
def test_framer_equals_the_naive_reference_in_blocks_and_limit(stream: bytes, places: list[int], limit: int) -> None:
    given, error = feed_until_too_large(Framer(limit), cut_at(stream, places))
    assert (given, error is not None) == naive_blocks(stream, limit)


@given(STREAMS, PLACES)
def test_nothing_is_lost_or_altered(stream: bytes, places: list[int]) -> None:
    framer = Framer()
    given = feed_all(framer, cut_at(stream, places))
    content = stream.removeprefix(BYTE_ORDER_MARK)
    assert content.startswith(given)
    held_back = len(content) - len(given)
    assert framer.pending_bytes == held_back or (held_back < 3 and BYTE_ORDER_MARK.startswith(content))


@given(STREAMS)
@example(BYTE_ORDER_MARK * 2 + b"\ndata\n\n")
def test_split_blocks_joined_are_their_input_and_each_is_one_block(stream: bytes) -> None:
    blocks = Framer().feed(stream)
    single = split_blocks(blocks)
    assert b"".join(single) == blocks
    if single and not single[0].strip(b"\r\n"):
        del single[0]
    for block in single:
        assert block[:1] not in (b"\r", b"\n")
        # The reference drops a byte order mark, which within a stream is text: it gets one to drop.
        assert naive_blocks(BYTE_ORDER_MARK + block.rstrip(b"\r\n"), 10_000)[0] == b""
        assert naive_blocks(BYTE_ORDER_MARK + block, 10_000)[0] == block


@pytest.mark.parametrize("line_end", LINE_ENDS, ids=LINE_END_NAMES)
def test_split_blocks_keeps_further_blank_lines_with_the_block_before_them(line_end: bytes) -> None:
    single = [b"\n\n", b"data: a\n\n\n", b"id: 1\ndata: b\n\n", b"data: c\n\n\n\n"]
    single = [block.replace(b"\n", line_end) for block in single]
    assert split_blocks(b"".join(single)) == single
    assert split_blocks(b"") == []


@pytest.mark.parametrize("end", LINE_ENDS, ids=LINE_END_NAMES)
def test_blocks_are_counted_whatever_their_line_ends(end: bytes) -> None:
    blocks = b"id: 1\ndata: a\ndata: b\n\n: comment\n\ndata: c\n\n".replace(b"\n", end)
    assert count_blocks(blocks) == 3
    assert count_blocks(b"") == 0


def feed_in_chunks(framer: Framer, stream: bytes, chunk_bytes: int) -> tuple[bytes, str]:
    """Return the blocks of a stream, without line ends, and why the framer refused the rest."""
    given = b""
    for at in range(0, len(stream), chunk_bytes):
        try:
            given += framer.feed(stream[at : at + chunk_bytes])
        except BlockTooLarge as error:
            return b"".join((given + error.complete).split()), str(error)
    return b"".join(given.split()), ""


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("chunk_bytes", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("before", [b"", b"before"])
def test_block_over_the_limit_of_lines_is_refused_after_the_blocks_before_it(line_end: bytes, chunk_bytes: int, before: bytes) -> None:
    ahead = before + line_end * 2 if before else b""
    whole, many = (ahead + (b"a" + line_end) * lines + line_end for lines in (20, 21))
    assert feed_in_chunks(Framer(max_block_lines=20), whole, chunk_bytes) == (before + b"a" * 20, "")
    refused = feed_in_chunks(Framer(max_block_lines=20), many, chunk_bytes)
    assert refused == (before, "event block reached 21 lines, limit is 20")


def test_many_blocks_in_one_chunk_may_have_more_lines_together() -> None:
    stream = b"data: a\ndata: b\n\n" * 100
    framer = Framer(max_block_lines=3)
    assert framer.feed(stream) == stream
    assert framer.feed(stream + b"data: c") == stream
    assert framer.feed(b"\n" + b"\n" + stream) == b"data: c\n\n" + stream
    with pytest.raises(BlockTooLarge, match="event block reached 4 lines, limit is 3"):
        framer.feed(stream + b"a\n" * 4 + b"\n" + stream)


def test_limits_below_one_line_are_refused() -> None:
    with pytest.raises(ValueError, match="max_block_lines is 0, must be at least 1"):
        Framer(max_block_lines=0)
