"""Which clients take event streams, and which ask for them by name."""

import pytest
from multidict import CIMultiDict

from gateway.http.accept import accepts_event_stream, names_event_stream

NAMED = [
    "text/event-stream",
    "Text/Event-Stream",
    "text/event-stream; charset=utf-8",
    "text/event-stream;q=0.1",
    "text/event-stream ; q=0.001",
    "text/event-stream;q=1, */*;q=0",
    "application/json, text/event-stream",
    'application/json;profile="a, b",text/event-stream',
    "text/event-stream;q=often",
]
INCLUDED = [
    "*/*",
    "*/*;q=0.8",
    "text/*",
    "text/*;q=0.5, */*;q=0",
    "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "application/json, */*",
    "",
    " , ",
]
EXCLUDED = [
    "application/json",
    "text/html, application/xml;q=0.9",
    "text/event-stream;q=0",
    "text/event-stream;q=0.000, */*",
    "text/event-stream; q=0 ;x=y, text/*",
    "text/*;q=0, */*",
    "*/*;Q=0.",
    "text/event-streams",
    'application/json;profile="text/event-stream"',
    'application/json;profile=", text/event-stream,"',
    "x-text/event-stream",
]


@pytest.mark.parametrize("accept", NAMED)
def test_client_that_names_the_type_takes_it(accept: str) -> None:
    headers = CIMultiDict({"Accept": accept})
    assert (accepts_event_stream(headers), names_event_stream(headers)) == (True, True)


@pytest.mark.parametrize("accept", INCLUDED)
def test_client_that_names_a_range_or_nothing_takes_the_type_without_naming_it(accept: str) -> None:
    headers = CIMultiDict({"Accept": accept})
    assert (accepts_event_stream(headers), names_event_stream(headers)) == (True, False)


@pytest.mark.parametrize("accept", EXCLUDED)
def test_client_that_names_other_types_or_refuses_this_one_does_not_take_it(accept: str) -> None:
    headers = CIMultiDict({"Accept": accept})
    assert (accepts_event_stream(headers), names_event_stream(headers)) == (False, False)


def test_fields_count_together() -> None:
    assert accepts_event_stream(CIMultiDict()) is True
    assert accepts_event_stream(CIMultiDict([("Accept", "application/json"), ("accept", "text/event-stream")])) is True
    assert accepts_event_stream(CIMultiDict([("Accept", "application/json"), ("accept", "text/html")])) is False


def test_unclosed_quotes_cost_no_more_than_others() -> None:
    """A pattern that tries each of them anew would take hours."""
    assert accepts_event_stream(CIMultiDict({"Accept": '"' + '\\"' * 200_000})) is False
