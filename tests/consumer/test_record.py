"""One line of the log."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.record import Position, Record, RecordError, decode, write_time
from tests.kit.consumer import record

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def line_with(**fields: object) -> bytes:
    """Return a record's line in which these fields have other values."""
    return json.dumps(json.loads(record(1).encode()) | fields).encode()


@given(
    st.builds(
        Record,
        received_at=TEXT,
        source=TEXT,
        id=st.none() | TEXT,
        type=TEXT,
        position=st.builds(Position, st.text("0123456789abcdef", min_size=1), st.integers(1, 10**18 - 1)),
        data=TEXT,
        gap=st.none(),
        last_event_id=st.none() | TEXT,
        repeat=st.booleans(),
    )
)
def test_record_round_trips_through_one_line(record: Record) -> None:
    line = record.encode()
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert decode(line) == record
    assert decode(line).key() == record.key()


def test_line_of_an_event_has_the_documented_fields() -> None:
    line = json.loads(record(7).encode())
    assert line == {
        "received_at": "2026-01-02T03:04:05.678901Z",
        "source": "http://127.0.0.1/",
        "id": "7",
        "type": "message",
        "data": "some data",
        "position": "e-7",
    }


def test_gap_has_an_object_instead_of_data() -> None:
    gap = Record("t", "s", None, "gap", Position("e", 3), gap={"missed": 2}, last_event_id="9")
    assert json.loads(gap.encode()) == {
        "received_at": "t",
        "source": "s",
        "id": None,
        "type": "gap",
        "gap": {"missed": 2},
        "position": "e-3",
        "last_event_id": "9",
    }
    assert decode(gap.encode()) == gap


def test_characters_beyond_ascii_are_readable_in_the_line() -> None:
    assert "七夕" in record(1, data="七夕\u2028\n").encode().decode()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"", "Invalid JSON"),
        (b'{"received_at": "t"', "Invalid JSON"),
        (b"\xff", "Invalid JSON"),
        (b"\0\0\0", "Invalid JSON"),
        (b"[" * 100_000, "Invalid JSON"),
        (b'{"data": "\\ud800"}', "Invalid JSON"),
        (b'{"data": "\xed\xa0\x80"}', "Invalid JSON: invalid unicode"),
        (record(1).encode().decode().encode("utf-16"), "Invalid JSON"),
        (b"[]", "Input should be an object"),
        (b"{}", "received_at: Field required"),
        (line_with(data=1), "data: Input should be a valid string"),
        (line_with(data=None), "must have either `data` or `gap`"),
        (line_with(gap={}), "must have either `data` or `gap`"),
        (line_with(id=1), "id: Input should be a valid string"),
        (line_with(repeat="yes"), "repeat: Input should be a valid boolean"),
        (line_with(position=1), "position: must be a string"),
        (line_with(position="e-x"), "position: must be <epoch>-<number>, got 'e-x'"),
        (line_with(position="-1"), "position: must be <epoch>-<number>, got '-1'"),
        (line_with(position="e"), "position: must be <epoch>-<number>, got 'e'"),
    ],
)
def test_invalid_record_is_refused_with_the_reason(line: bytes, reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        decode(line)


def test_time_is_rfc_3339_in_utc_to_the_microsecond() -> None:
    assert write_time(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)) == "2026-01-02T03:04:05.000000Z"
