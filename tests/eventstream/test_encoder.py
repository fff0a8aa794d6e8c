"""encode: its output reads back as its input, or it refuses the input."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstream import HEARTBEAT, HEARTBEAT_BLOCK, Event, Framer, Parser, encode, encode_retry, split_blocks

ONE_LINE = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"))
IDS = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"))
TEXT = st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from("\r\n :")))


def test_fields_are_written_in_a_fixed_order() -> None:
    block = encode("a\nb", type="add", id="7", retry=1500, comment="note")
    assert block == b": note\nid: 7\nevent: add\nretry: 1500\ndata: a\ndata: b\n\n"


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
def test_each_line_of_data_and_comment_is_a_field(line_end: str) -> None:
    assert encode(f"a{line_end}{line_end}b{line_end}") == b"data: a\ndata: \ndata: b\ndata: \n\n"
    assert encode(comment=f"a{line_end}{line_end}b") == b": a\n:\n: b\n\n"


def test_empty_values_are_written() -> None:
    assert encode("", type="", id="", retry=0, comment="") == b":\nid: \nevent: \nretry: 0\ndata: \n\n"


@pytest.mark.parametrize("text", ["a\nb", "a\rb", "\r\n", "a\n"])
def test_line_ends_in_id_and_type_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"id .* contains a line end, which would start another field"):
        encode("a", id=text)
    with pytest.raises(ValueError, match=r"type .* contains a line end, which would start another field"):
        encode("a", type=text)


def test_values_that_receivers_ignore_or_cannot_read_are_refused() -> None:
    with pytest.raises(ValueError, match="contains NUL; receivers ignore such an id"):
        encode("a", id="a\0")
    with pytest.raises(ValueError, match="retry must be at least 0 milliseconds, got -1"):
        encode("a", retry=-1)
    with pytest.raises(ValueError, match="needs at least one of data, type, id, retry and comment"):
        encode()
    with pytest.raises(ValueError, match="surrogates not allowed"):
        encode("\ud800")


def test_heartbeat_is_a_comment_line_and_no_block() -> None:
    framer = Framer()
    assert framer.feed(HEARTBEAT) == b""
    comments: list[str] = []
    assert Parser(on_comment=comments.append).feed(framer.feed(encode("a"))) == [Event("a")]
    assert comments == [""]


def test_heartbeat_block_is_a_comment_and_no_event() -> None:
    framer = Framer()
    assert framer.feed(HEARTBEAT_BLOCK) == HEARTBEAT_BLOCK
    comments: list[str] = []
    assert Parser(on_comment=comments.append).feed(HEARTBEAT_BLOCK + encode("a")) == [Event("a")]
    assert comments == [""]


def test_retry_line_is_no_block_and_belongs_to_the_next_one() -> None:
    assert encode_retry(1500) == b"retry: 1500\n"
    framer = Framer()
    assert framer.feed(encode_retry(0)) == b""
    assert Parser().feed(framer.feed(encode("a"))) == [Event("a", retry=0)]
    with pytest.raises(ValueError, match="retry must be at least 0 milliseconds, got -1"):
        encode_retry(-1)


@given(TEXT, st.none() | ONE_LINE, st.none() | IDS, st.none() | st.integers(0, 10**18 - 1), st.none() | TEXT)
def test_encoded_event_reads_back_as_it_was(data: str, type: str | None, id: str | None, retry: int | None, comment: str | None) -> None:
    block = encode(data, type=type, id=id, retry=retry, comment=comment)
    assert split_blocks(Framer().feed(block)) == [block]
    comments: list[str] = []
    (event,) = Parser(on_comment=comments.append).feed(block)
    assert event == Event(re.sub("\r\n|\r", "\n", data), type or "message", id, id or "", retry)
    assert comments == ([] if comment is None else re.split("\r\n|\r|\n", comment))


@given(st.lists(TEXT, max_size=5), st.integers(1, 8))
def test_events_in_a_row_read_back_in_order_from_chunks_of_any_size(texts: list[str], size: int) -> None:
    stream = b"".join(encode(text) for text in texts)
    framer, parser = Framer(), Parser()
    events = [event for at in range(0, len(stream), size) for event in parser.feed(framer.feed(stream[at : at + size]))]
    assert [event.data for event in events] == [re.sub("\r\n|\r", "\n", text) for text in texts]
