"""Test what grants cover, and that they cover nothing ambiguous."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.grants import GrantError, Grants, covers, parse_topic
from producer.topics.names import Patterns, TopicError

SEGMENTS = ("a", "b", "c")
NAMES = [".".join(segments) for count in range(1, 5) for segments in itertools.product(SEGMENTS, repeat=count)]
"""All topics of up to four segments. They tell apart all patterns of up to three segments, because no pattern contains `c`."""

patterns = st.lists(st.sampled_from(["a", "b", "*"]), max_size=3).flatmap(
    lambda head: st.sampled_from([["a"], ["b"], ["*"], [">"]]).map(lambda last: ".".join([*head[:2], *last]))
)


def reading(*entries: str) -> Grants:
    return Grants.parse({"read": list(entries)})


@given(granted=patterns, asked=patterns)
def test_pattern_is_covered_if_and_only_if_all_topics_that_it_matches_are(granted: str, asked: str) -> None:
    matched, allowed = (Patterns.parse([text]).matcher() for text in (asked, granted))
    subset = all(allowed.fullmatch(name) for name in NAMES if matched.fullmatch(name))
    first, second = parse_topic(granted), parse_topic(asked)
    assert first is not None
    assert second is not None
    assert covers(first, second) is subset


@given(text=st.text(st.sampled_from("ab.*>%2AeE5-_~/ \n\\é"), max_size=12))
def test_topics_are_canonicalized_as_by_the_producer_or_rejected(text: str) -> None:
    try:
        (spelled,) = Patterns.parse([text]).texts
    except TopicError:
        spelled = None
    topic = parse_topic(text)
    assert topic is None or ".".join(topic) == spelled
    assert topic is not None or spelled is None or "%25" in spelled or "%5C" in spelled


@pytest.mark.parametrize(
    "target",
    [
        "/topics/orders.new/events",
        "/topics/orders.new/events?from=start&limit=3",
        "/topics/orders.*/events",
        "/topics/orders.%2A/events",
        "/topics/orders.>/events",
        "/topics/orders.%3e/events",
        "/topics/%6frders.new/events",
        "/topics/orders.a.b.c/events",
        "/topics/orders.caf%C3%A9/events",
        "/topics/orders.new/events/fw9pcqhad5ms-1",
        "/events?topic=orders.new",
        "/events?topic=orders.*&topic=orders.a.%3E&from=start",
        "/events?from=start&%74opic=orders.new",
        "/%65vents?topic=%6Frders.new",
    ],
)
def test_topic_pattern_covers_requests_for_a_part_of_it(target: str) -> None:
    assert reading("orders.>").allows("GET", target)
    assert reading("orders.>").allows("HEAD", target)
    assert reading("news", "orders.>").allows("GET", target)
    assert not reading("orders.>").allows("POST", target)
    assert not reading("news").allows("GET", target)


@pytest.mark.parametrize(
    "target",
    [
        "/topics/orders/events",
        "/topics/>/events",
        "/topics/*.new/events",
        "/topics/orders/../secret/events",
        "/topics/orders.new/../../secret/events",
        "/topics/orders.new/events/%2e%2e/events",
        "/topics/orders%2Enew/events",
        "/topics/orders.a%252Eb/events",
        "/topics/orders.a%2Fb/events",
        "/topics/orders.a%00/events",
        "/topics/orders.a%FF/events",
        "/topics/orders.%zz/events",
        "/topics/orders.>.a/events",
        "/topics//orders.new/events",
        "//topics/orders.new/events",
        "/topics/orders.new/events/",
        "/topics/orders.new/events;x",
        "/topics/orders.new",
        "/topics",
        "/topics/ORDERS.new/events",
        "/events",
        "/events?topic=",
        "/events?topic=orders.new&topic=secret",
        "/events?topic=orders.new&topic=",
        "/events?topic=orders.new%26topic=secret",
        "/events?topic=orders.new%2500",
        "/events?topic=orders.a%252Eb",
        "/events/?topic=orders.new",
        "/events?" + "&".join(["topic=orders.new"] * 65),
        "/other?topic=orders.new",
    ],
)
def test_topic_pattern_covers_nothing_else(target: str) -> None:
    assert not reading("orders.>").allows("GET", target)


def test_several_patterns_cover_only_topics_that_one_of_them_covers() -> None:
    grants = reading("a", "a.>")
    assert grants.allows("GET", "/events?topic=a&topic=a.b")
    assert not reading("*", "*.>").allows("GET", "/topics/>/events")


@pytest.mark.parametrize(
    ("entry", "path", "covered"),
    [
        ("/llm", "/llm", True),
        ("/llm", "/llm/", False),
        ("/llm", "/llm/x", False),
        ("/llm/*", "/llm/x", True),
        ("/llm/*", "/llm", False),
        ("/llm/*", "/llm/x/y", False),
        ("/llm/*/events", "/llm/x/events", True),
        ("/llm/**", "/llm", False),
        ("/llm/**", "/llm/", True),
        ("/llm/**", "/llm/x/y/z", True),
        ("/llm/**", "/llmx/y", False),
        ("/llm/*/**", "/llm/x", False),
        ("/**", "/", True),
        ("/**", "/any/thing", True),
        ("/caf%C3%A9", "/caf%c3%a9", True),
        ("/a,b", "/a%2Cb", True),
        ("/llm/**", "/llm/../admin", False),
        ("/llm/**", "/llm/%2e%2E/admin", False),
        ("/llm/**", "/llm/%252e%252e/admin", False),
        ("/llm/**", "/llm/..;x/admin", False),
        ("/llm/**", "/llm/..%2fadmin", False),
        ("/llm/**", "/llm\\..\\admin", False),
        ("/llm/**", "/llm/..%5cadmin", False),
        ("/llm/**", "/llm//admin", False),
        ("/llm/**", "/llm/./x", False),
        ("/llm/**", "/llm/%", False),
        ("/llm/**", "/llm/\udcff", False),
    ],
)
def test_path_pattern_covers_whole_segments_and_nothing_ambiguous(entry: str, path: str, covered: bool) -> None:
    assert reading(entry).allows("GET", path) is covered
    assert reading(entry).allows("GET", path + "?any=query&topic=x") is covered


def test_reading_and_publishing_are_granted_separately() -> None:
    grants = Grants.parse({"read": ["/a"], "publish": ["/b", "orders.new"], "other": 1})
    assert [grants.allows(method, "/a") for method in ("GET", "HEAD", "POST", "DELETE", "OPTIONS")] == [True, True, False, False, False]
    assert [grants.allows(method, "/b") for method in ("GET", "HEAD", "POST", "DELETE", "BREW")] == [False, False, True, True, True]
    assert grants.allows("POST", "/topics/orders.new/events")
    assert not grants.allows("DELETE", "/topics/orders.new")
    assert not Grants.parse({}).allows("GET", "/")


@pytest.mark.parametrize(
    ("claim", "says"),
    [
        (None, "must be an object"),
        (["orders.>"], "must be an object"),
        ({"read": "orders.>"}, "read must be an array"),
        ({"publish": [1]}, "publish, entry 1"),
        ({"read": ["a", "orders.>.a"]}, "read, entry 2 must be a path"),
        ({"read": ["/a/**/b"]}, "read, entry 1 is not a valid path"),
        ({"read": ["/a*"]}, "read, entry 1 is not a valid path"),
        ({"read": ["/a/../b"]}, "read, entry 1 is not a valid path"),
    ],
)
def test_invalid_grant_is_rejected_without_repeating_it(claim: object, says: str) -> None:
    with pytest.raises(GrantError, match=re.escape(says)):
        Grants.parse(claim)
