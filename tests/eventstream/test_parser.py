"""Parser, after a Framer: events as in HTML standard 9.2.6."""

import pytest
from hypothesis import given

from eventstream import Event, Framer, Parser
from tests.eventstream.reference import LINE_END_NAMES, LINE_ENDS, PLACES, STREAMS, cut_at, cut_in_every_way, naive_events


def message(data: str, type: str = "message", id: str | None = None, last_event_id: str | None = None, retry: int | None = None) -> Event:
    return Event(data, type, id, (id or "") if last_event_id is None else last_event_id, retry)


# The first six are the examples of the standard's sections 9.2.1, 9.2.6 and 9.2.7.
CASES = {
    "two messages of one and two lines": (
        "data: This is the first message.\n\ndata: This is the second message, it\ndata: has two lines.\n\n"
        "data: This is the third message.\n\n",
        [
            message("This is the first message."),
            message("This is the second message, it\nhas two lines."),
            message("This is the third message."),
        ],
    ),
    "named events": (
        "event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\nevent: add\ndata: 113411\n\n",
        [message("73857293", "add"), message("2153", "remove"), message("113411", "add")],
    ),
    "the stock ticker": ("data: YHOO\ndata: +2\ndata: 10\n\n", [message("YHOO\n+2\n10")]),
    "a comment, an ID, an empty ID, and an unfinished block": (
        ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n",
        [message("first event", id="1"), message("second event", id="")],
    ),
    "a leading space that stays": ("data:  third event\n\n", [message(" third event")]),
    "empty data, and a block whose blank line is missing": ("data\n\ndata\ndata\n\ndata:", [message(""), message("\n")]),
    "one space after the colon or none": ("data:test\n\ndata: test\n\n", [message("test"), message("test")]),
    "a colon in the value": ("data: a:b: c\n\n", [message("a:b: c")]),
    "a type without data is forgotten": ("event: a\n\ndata: b\n\n", [message("b")]),
    "an empty type": ("event:\ndata: b\n\n", [message("b")]),
    "the last type counts": ("event: a\nevent: b\ndata: c\n\n", [message("c", "b")]),
    "the last ID counts": ("id: 1\nid: 2\ndata: c\n\n", [message("c", id="2")]),
    "an ID stays for later blocks": ("id: 1\ndata: a\n\ndata: b\n\n", [message("a", id="1"), message("b", last_event_id="1")]),
    "a block without data moves the ID": ("id: 1\n\ndata: b\n\n", [message("b", last_event_id="1")]),
    "an ID with NUL is ignored": ("id: 1\ndata: a\n\nid: 2\0\ndata: b\n\n", [message("a", id="1"), message("b", last_event_id="1")]),
    "an ID with NUL behind a good one": ("id: 1\nid: \0\ndata: a\n\n", [message("a", id="1")]),
    "an ID of an unfinished block": ("id: 1\ndata: a\n\nid: 2\n", [message("a", id="1")]),
    "unknown fields and fields in capitals": ("Data: x\nDATA: x\nfoo: x\nfoo\ndata : x\n data: x\ndata: a\n\n", [message("a")]),
    "retry of its own": ("retry: 1500\n\ndata: a\n\n", [message("a")]),
    "retry with data": ("retry: 1500\ndata: a\n\n", [message("a", retry=1500)]),
    "retry that is no number": ("retry: 1.5\nretry: -1\nretry: +1\nretry: 1e3\nretry:\nretry: ١\nretry: 1 \ndata: a\n\n", [message("a")]),
    "NUL in data": ("data: a\0b\n\n", [message("a\0b")]),
    "characters of several bytes": ("data: 七夕情人节\nevent: 节\nid: é\n\n", [message("七夕情人节", "节", "é")]),
    "line ends that only Python knows": ("data: a\x0bb\x0cc\x1cd\x85e\u2028f\n\n", [message("a\x0bb\x0cc\x1cd\x85e\u2028f")]),
    "blank lines": ("\n\ndata: a\n\n\n\n\ndata: b\n\n", [message("a"), message("b")]),
}


def parse(chunks: list[bytes]) -> list[Event]:
    framer, parser = Framer(), Parser()
    return [event for chunk in chunks for event in parser.feed(framer.feed(chunk))]


@pytest.mark.parametrize("line_end", LINE_ENDS, ids=LINE_END_NAMES)
@pytest.mark.parametrize(("stream", "events"), CASES.values(), ids=CASES.keys())
def test_events_are_the_same_wherever_the_chunks_are_cut(stream: str, events: list[Event], line_end: bytes) -> None:
    for chunks in cut_in_every_way(stream.encode().replace(b"\n", line_end)):
        assert parse(chunks) == events


@given(STREAMS, PLACES)
def test_parser_equals_the_naive_reference(stream: bytes, places: list[int]) -> None:
    parsed = parse(cut_at(stream, places))
    assert [(event.type, event.data, event.last_event_id) for event in parsed] == naive_events(stream)


def test_last_event_id_is_that_of_the_last_whole_block_and_starts_with_the_given_one() -> None:
    parser = Parser("0")
    assert parser.feed(b"data: a\n\n") == [message("a", last_event_id="0")]
    parser.feed(b"id: 1\n\nid: 2\n\n")
    assert parser.last_event_id == "2"
    parser.feed(b"id\n\n")
    assert parser.last_event_id == ""


@pytest.mark.parametrize(
    ("digits", "milliseconds"),
    [("0", 0), ("15000", 15000), ("007", 7), ("0" * 30 + "7", 7), ("000", 0), ("9" * 10_000, 10**18 - 1)],
)
def test_retry_sets_the_reconnection_time_however_long_its_digits(digits: str, milliseconds: int) -> None:
    parser = Parser()
    assert parser.reconnection_time is None
    parser.feed(f"retry: {digits}\n\n".encode())
    assert parser.reconnection_time == milliseconds
    parser.feed(b"retry: no\n\ndata: a\n\n")
    assert parser.reconnection_time == milliseconds


def test_comments_are_reported_in_order_and_are_no_events() -> None:
    comments: list[str] = []
    parser = Parser(on_comment=comments.append)
    assert parser.feed(b": one\n\n:two\n:\ndata: a\n: \xff\n\n") == [message("a")]
    assert comments == ["one", "two", "", "\ufffd"]


def test_bytes_that_are_not_utf_8_become_replacement_characters() -> None:
    assert parse([b"data: a\xff\xe4\xb8\nid: \xc3\nevent: \x80\n\n"]) == [message("a\ufffd\ufffd", "\ufffd", "\ufffd")]


def test_repr_shows_the_position_in_the_stream() -> None:
    parser = Parser()
    parser.feed(b"id: 7\nretry: 5\n\n")
    assert repr(parser) == "<Parser last_event_id='7' reconnection_time=5>"
