"""Names in requests, answers and events; documents are never built whole."""

import tracemalloc

import pytest

from gateway.modes.resumable.naming import JsonPointer, NameInEvents, name_in_fields, valid_name
from gateway.policy.resume import Source

MIB = 2**20


@pytest.mark.parametrize(
    ("document", "pointer", "value"),
    [
        (b'{"id": "abc"}', ["id"], "abc"),
        (b' {"x": [1, {"id": 1}], "id" : "a\\u00e4\\n" }', ["id"], "aä\n"),
        (b'{"id": "first", "id": "last"}', ["id"], "last"),
        (b'{"response": {"id": "r1"}}', ["response", "id"], "r1"),
        (b'{"a": [{"id": "x"}, {"id": "y"}]}', ["a", "1", "id"], "y"),
        (b'{"a": {"1": "object"}}', ["a", "1"], "object"),
        (b'{"a/b": {"~": "q"}}', ["a/b", "~"], "q"),
        (b'{"": "empty"}', [""], "empty"),
        (b'{"id": 17}', ["id"], 17),
        (b'{"id": null}', ["id"], None),
        (b'{"id": true}', ["id"], None),
        (b'{"id": 1.5}', ["id"], None),
        (b'{"id": {"x": 1}}', ["id"], None),
        (b'{"id": ["x"]}', ["id"], None),
        (b'{"a": [1]}', ["a", "1"], None),
        (b'{"a": [1]}', ["a", "-1"], None),
        (b'{"a": [1]}', ["a", "00"], None),
        (b'{"other": "abc"}', ["id"], None),
        (b'"abc"', ["id"], None),
        (b'{"id": "\\ud800"}', ["id"], None),
        (b'{"id": "\xff"}', ["id"], None),
        (b'{"id": "abc"', ["id"], None),
        (b'{"id": "abc"} x', ["id"], None),
        (b"", ["id"], None),
        (b"id=abc", ["id"], None),
        (b'{"id": ' + b"9" * 5000 + b"}", ["id"], None),
        (b'{"n": ' + b"9" * 100_000 + b', "id": "abc"}', ["id"], "abc"),
        (b'{"id": "%b"}' % (b"x" * 10_000), ["id"], None),
        (b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b', "id": "abc"}', ["id"], None),
    ],
)
def test_value_at_a_pointer(document: bytes, pointer: list[str], value: str | int | None) -> None:
    assert JsonPointer(pointer).read(document) == value


@pytest.mark.parametrize("filling", [b"[],", b"{},", b"1,", b'"x",', b'{"a":[1]},'])
def test_large_document_takes_no_memory(filling: bytes) -> None:
    document = b'{"messages": [%b1], "id": "abc"}' % (filling * (4 * MIB // len(filling)))
    pointer = JsonPointer(["id"])
    tracemalloc.start()
    try:
        assert pointer.read(document) == "abc"
        assert tracemalloc.get_traced_memory()[1] < MIB
        assert JsonPointer(["messages", "0"]).read(document) is None
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()


def test_name_is_taken_from_the_first_event_that_has_one() -> None:
    found: list[str] = []
    search = NameInEvents(("response", "id"), found.append)
    assert not search.search(b": hi\n\ndata: {}\n\n")
    assert search.search(b'event: response.created\ndata: {"response": {"id": "r1"}}\n\ndata: {"response": {"id": "r2"}}\n\n')
    assert found == ["r1"]


def test_search_ends_after_a_hundred_events() -> None:
    found: list[str] = []
    search = NameInEvents(("id",), found.append)
    assert not search.search(b"data: x\n\n" * 99)
    assert search.search(b"data: x\n\n")
    assert found == []


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("/threads/t/runs/r1", "r1"),
        ("https://host/base/runs/r1/?x=/y", "r1"),
        ("a%2Fb", "a/b"),
        ("plain", "plain"),
        ("", ""),
    ],
)
def test_name_in_a_header_field_of_an_answer(value: str, name: str) -> None:
    assert name_in_fields(Source("response-header", "Content-Location"), {"Content-Location": value}) == name


def test_long_name_is_none() -> None:
    assert valid_name("x" * 1024) == "x" * 1024
    assert valid_name("x" * 1025) == ""
    assert valid_name(None) == ""
    assert valid_name(7) == "7"
