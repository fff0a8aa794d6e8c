"""The last event ID of a request: from its header fields, else from its query."""

import pytest
from multidict import CIMultiDict

from gateway.policy.last_event_id import read_last_event_id, without_last_event_id

FIELD = "Last-Event-ID"


@pytest.mark.parametrize(
    ("fields", "target", "id"),
    [
        ([], "/a", ""),
        ([], "/a?", ""),
        ([(FIELD, "1")], "/a", "1"),
        ([("last-event-id", "1"), (FIELD, "2"), (FIELD, "3")], "/a", "3"),
        ([(FIELD, "1")], "/a?last_event_id=2", "1"),
        ([(FIELD, "")], "/a?last_event_id=2", "2"),
        ([], "/a?last_event_id=1", "1"),
        ([], "/a?lastEventId=1", "1"),
        ([], "/a?lastEventID=1", "1"),
        ([], "/a?Last-Event-ID=1", "1"),
        ([], "/a?last%5Fevent%5Fid=1", "1"),
        ([], "/a?b=2&lastEventId=1&c", "1"),
        ([], "/a?lastEventId=1&lastEventId=2", "2"),
        ([], "/a?lastEventID=1&last_event_id=2", "2"),
        ([], "/a?lastEventId=&lastEventID=1", "1"),
        ([], "/a?lastEventId=1&lastEventId=", "1"),
        ([], "/a?lastEventId=%E4%B8%83%20%2B+1", "七 + 1"),
        ([], "/a?lasteventid=1", ""),
        ([], "/lastEventId=1", ""),
    ],
)
def test_last_field_counts_and_the_query_only_without_a_field(fields: list[tuple[str, str]], target: str, id: str) -> None:
    assert read_last_event_id(CIMultiDict(fields), target) == id


@pytest.mark.parametrize(
    ("target", "left"),
    [
        ("/a", "/a"),
        ("/a?", "/a?"),
        ("/a?b=1&c=%20&&d", "/a?b=1&c=%20&&d"),
        ("/a?lastEventId=1", "/a"),
        ("/a?lastEventId=1&b=lastEventId&last_event_id&Last-Event-ID=2", "/a?b=lastEventId"),
        ("/a?last%5Fevent%5Fid=1&b", "/a?b"),
    ],
)
def test_target_without_its_last_event_id_is_otherwise_as_it_came(target: str, left: str) -> None:
    assert without_last_event_id(target) == left
