"""Event streams in any bytes and cuts: framer, parser, encoder and all that looks into a block agree with a simple model of them."""

import re

import pytest
from hypothesis import strategies as st

from eventstream import BYTE_ORDER_MARK, BlockTooLarge, Event, Framer, Parser, count_blocks, encode, split_blocks
from eventstream.received import Received, UnfinishedLines
from gateway.streams.stamping import guard_mark, has_data, place_ahead, read_id, read_ids, read_stamp, stamp, stamp_plain
from tests.eventstream.reference import PLACES, cut_at, naive_blocks, naive_events
from tests.fuzz.fuzzing import TARGET, fuzz, joined, mutated

pytestmark = TARGET

STREAM = "0" * 31 + "a"
_LINE = re.compile(rb"([^\r\n]*)(\r\n|\r|\n)")
_SEVERAL_BLANK_LINES = re.compile(rb"(?>\r\n|\r|\n){3}|\A[\r\n]")
CORPUS = [
    b": hello\nretry: 1000\n\nid: 1\nevent: e\ndata: a\ndata: b\n\n",
    b"data: a\r\n\r\nid: 2\r\ndata: b\r\n\r\n",
    b"data: a\r\rid\rdata\r\r",
    BYTE_ORDER_MARK + b"data: a\n\n\n\nretry: 5\n\ndata:\n\n",
    b'event: delta\ndata: {"x": "\xe4\xb8\x83"}\n\ndata: [DONE]\n\n',
    b"id: a\0b\ndata: x\n\nid:\ndata: y\n\n",
]
PIECES = [
    b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\r\n\r\n", b"\n\r", b"data", b"data:", b"data: x", b"id", b"id:", b"id: 7", b"id: \0",
    b"event", b"event: e", b"retry", b"retry: 5", b"retry: 05", b"retry: -5", b"retry: " + b"9" * 30, b":", b": c", b" ", b"x", b"\0",
    BYTE_ORDER_MARK, b"\xef\xbb", b"\xff", b"\xe4\xb8\x83", b"\x0b", b"\x0c", b"\x1c", b"\x85", b"\xc2\x85", b"\xe2\x80\xa8", b"idea: 1",
    b"Data: x",
]  # fmt: skip
STREAMS = mutated(CORPUS, PIECES) | joined(PIECES) | joined([b"\n", b"\r", b"d", b"id", b"data:"], 40) | st.binary(max_size=80)


def fields_of(block: bytes) -> list[tuple[bytes, bytes]]:
    """Name and value of each line of a block, as HTML standard 9.2.6 has them."""
    lines = [line for line, _ in _LINE.findall(block) if line]
    pairs = [line.partition(b":") for line in lines]
    return [(name, value[1:] if value.startswith(b" ") else value) for name, _, value in pairs]


def model_id(block: bytes) -> str | None:
    ids = [value for name, value in fields_of(block) if name == b"id" and b"\0" not in value]
    return ids[-1].decode("utf-8", "replace") if ids else None


def events_of(stream: bytes, last_event_id: str = "") -> list[tuple[str, str, str]]:
    """Parse it as a client that does not strip a byte order mark."""
    parser = Parser(last_event_id)
    return [(event.type, event.data, event.last_event_id) for event in parser.feed(stream)]


def check_event_blocks(stream: bytes, places: list[int], limit: int, number: int) -> None:
    chunks = cut_at(stream, places)
    _check_framer(stream, chunks, limit)
    blocks = Framer().feed(stream)
    _check_received(stream, blocks, chunks)
    single = split_blocks(blocks)
    assert b"".join(single) == blocks
    for block in single:
        _check_block(block, number)
    _check_stamped_together(blocks, single, number)
    _check_placed(blocks, single)


def _check_framer(stream: bytes, chunks: list[bytes], limit: int) -> None:
    expected, too_large = naive_blocks(stream, limit)
    for keeps_mark in (False, True):
        framer = Framer(limit, keeps_mark=keeps_mark)
        come, error = b"", None
        try:
            for chunk in chunks:
                come += framer.feed(chunk)
        except BlockTooLarge as too:
            come, error = come + too.complete, too
        if not keeps_mark or not stream.startswith(BYTE_ORDER_MARK):
            assert (come, error is not None) == (expected, too_large)
        if error is None:
            begin = b"" if keeps_mark or not stream.startswith(BYTE_ORDER_MARK) else BYTE_ORDER_MARK
            assert begin + come + framer.flush() == stream


def _check_received(stream: bytes, blocks: bytes, chunks: list[bytes]) -> None:
    """Check that parsing in pieces, with a look at the unfinished part, equals parsing the whole."""
    whole_comments: list[str] = []
    whole = Parser(on_comment=whole_comments.append)
    events = whole.feed(blocks)
    assert [(event.type, event.data, event.last_event_id) for event in events] == naive_events(stream)
    assert whole.last_event_id == next((id for block in reversed(split_blocks(blocks)) if (id := model_id(block)) is not None), "")
    comments: list[str] = []
    parser = Parser(on_comment=comments.append)
    received = Received(parser, 2**20)
    given: list[Event] = []
    for chunk in chunks:
        received.add(chunk)
        while (block := received.pop()) is not None:
            given += parser.feed(block)
        received.look_ahead()
    assert given == events
    assert parser.last_event_id == whole.last_event_id
    assert comments[: len(whole_comments)] == whole_comments
    rest = bytes(received._framer.unfinished)
    begun = [value for name, value in fields_of(rest) if not name]
    # The LF of a CRLF may still come, and with it nothing; a lone CR at the end is a line end at once.
    assert comments[len(whole_comments) :] == [value.decode("utf-8", "replace") for value in begun]
    lines = UnfinishedLines()
    taken = [line for end in range(len(rest) + 1) for line in lines.take(bytearray(rest[:end]))]
    at_once = (b":", b"retry:")  # other lines may be left out
    assert [line for line in taken if line.startswith(at_once)] == [line for line, _ in _LINE.findall(rest) if line.startswith(at_once)]


def _check_block(block: bytes, number: int) -> None:
    names = [name for name, _ in fields_of(block)]
    assert has_data(block) == (b"data" in names)
    assert read_id(block) == model_id(block)
    assert read_ids(block) == [value for name, value in fields_of(block) if name == b"id" and b"\0" not in value]
    assert guard_mark(block).endswith(block)
    stamped = stamp(block, STREAM, number)
    if model_id(block) is not None:
        assert stamped == (block, model_id(block))
    elif b"data" in names:
        assert stamped is not None
        given, own = stamped
        assert own is None
        assert read_stamp(read_id(given) or "") == (STREAM, number)
        assert [event[:2] for event in events_of(given)] == [event[:2] for event in events_of(block)]
        assert len(events_of(given)) == 1
        assert fields_of(given)[:-1] == fields_of(block)
    elif {b"event", b"retry", b"id"}.isdisjoint(names):
        assert stamped is None
    else:
        assert stamped == (block, None)


def _check_stamped_together(blocks: bytes, single: list[bytes], number: int) -> None:
    together = stamp_plain(blocks, b"id: %b-" % STREAM.encode(), number)
    if together is not None:
        assert [(block, None) for block in together] == [stamp(block, STREAM, place) for place, block in enumerate(single, number)]
    if not _SEVERAL_BLANK_LINES.search(blocks):
        assert count_blocks(blocks) == len(single)


def _check_placed(blocks: bytes, single: list[bytes]) -> None:
    placed, left = place_ahead(b"id: before\n", blocks)
    first = next((block for block in single if has_data(block) or model_id(block) is not None), None)
    assert left == (b"id: before\n" if first is None else b"")
    assert placed == blocks or placed.replace(b"id: before\n", b"", 1) == blocks
    assert events_of(placed) == events_of(blocks, "before")
    for block in split_blocks(placed):
        assert read_id(block) != "before" or has_data(block)


TEXTS = st.text(max_size=12) | st.lists(
    st.sampled_from(["\r", "\n", "\r\n", "a", ":", " ", "\0", "\ufeff", "\u2028", "\x85", "七"]), max_size=8
).map("".join)


def check_encoder(data: str | None, event_type: str | None, id: str | None, retry: int | None, comment: str | None) -> None:
    try:
        block = encode(data, type=event_type, id=id, retry=retry, comment=comment)
    except ValueError:
        wrong = any(text is not None and ("\r" in text or "\n" in text) for text in (event_type, id)) or "\0" in (id or "")
        surrogates = re.search("[\ud800-\udfff]", "".join(text or "" for text in (data, event_type, id, comment)))
        assert wrong or surrogates or (retry is not None and retry < 0) or {data, event_type, id, retry, comment} == {None}
        return
    assert Framer().feed(block) == block
    assert split_blocks(block) == [block]
    comments: list[str] = []
    parser = Parser(on_comment=comments.append)
    events = parser.feed(block)
    plain = None if data is None else re.sub("\r\n|\r", "\n", data)
    assert [(event.data, event.type) for event in events] == ([] if plain is None else [(plain, event_type or "message")])
    assert parser.last_event_id == (id or "")
    assert "\n".join(comments) == ("" if comment is None else re.sub("\r\n|\r", "\n", comment))
    assert retry is None or retry >= 10**18 or parser.reconnection_time == retry


def test_event_blocks() -> None:
    fuzz(check_event_blocks, STREAMS, PLACES, st.integers(3, 60), st.integers(1, 10**12 - 100))


def test_encoder() -> None:
    optional = st.none() | TEXTS
    fuzz(check_encoder, optional, optional, optional, st.none() | st.integers(-1, 10**30), optional)


@pytest.mark.parametrize("text", ["id", "data"])
def test_model_reads_fields(text: str) -> None:
    assert fields_of(f"{text}\n{text}: a\r{text}:b\r\n\r\n".encode()) == [(text.encode(), value) for value in (b"", b"a", b"b")]
