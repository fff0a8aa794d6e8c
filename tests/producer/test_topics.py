import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.topics.names import Patterns, TopicError, parse_topic
from service.topic_names import LONGEST_NAME

SEGMENTS = st.text("abcXYZ019-_~", min_size=1, max_size=4)
NAMES = st.lists(SEGMENTS, min_size=1, max_size=5).map(".".join)


def matches(pattern: str, topic: str) -> bool:
    return bool(Patterns.parse([pattern]).matcher().fullmatch(topic))


def by_definition(pattern: list[str], topic: list[str]) -> bool:
    """Return whether a pattern matches, segment by segment."""
    if not pattern or not topic:
        return not pattern and not topic
    if pattern == [">"]:
        return True
    return pattern[0] in ("*", topic[0]) and by_definition(pattern[1:], topic[1:])


@pytest.mark.parametrize("name", ["a", "orders", "orders.eu.2026", "A-b_c~9", "caf%C3%A9.x", "%20", "a" * LONGEST_NAME, "a" + ".a" * 31])
def test_plain_name_is_unchanged(name: str) -> None:
    assert parse_topic(name) == name


@pytest.mark.parametrize(
    ("text", "name"), [("%c3%a9", "%C3%A9"), ("%41b%2D%5f%7E", "Ab-_~"), ("x.%3a", "x.%3A"), ("%2525", "%2525"), ("%252E", "%252E")]
)
def test_every_spelling_of_a_name_is_one_name(text: str, name: str) -> None:
    assert parse_topic(text) == name
    assert Patterns.parse([text, name]).texts == (name,)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is empty"),
        (".a", "has an empty segment"),
        ("a.", "has an empty segment"),
        ("a..b", "has an empty segment"),
        ("a b", "has 'a b'; segments, between dots, are of letters"),
        ("a/b", "has 'a/b'"),
        ("é", "has 'é'"),
        ("a%", "has 'a%'"),
        ("a%2", "has 'a%2'"),
        ("a%zz", "has 'a%zz'"),
        ("a\n", r"has 'a\\n'"),
        ("a.%2e", "has %2E: a dot cannot be part of a name"),
        ("%2F", "a slash"),
        ("x%2A", "has %2A"),
        ("x%3e", "has %3E"),
        ("%00", "has a control character"),
        ("%7f", "has a control character"),
        ("%C2%85", "has a control character"),
        ("%ff", "which is not UTF-8"),
        ("%C3", "which is not UTF-8"),
        ("%ED%A0%80", "which is not UTF-8"),
        ("a" * 256, "has 256 characters, allowed are 255"),
        ("a" + ".a" * 32, "has 33 segments, allowed are 32"),
    ],
)
def test_invalid_name_is_refused_with_what_is_allowed(text: str, why: str) -> None:
    with pytest.raises(TopicError, match=why):
        parse_topic(text)
    with pytest.raises(TopicError, match=why):
        Patterns.parse([text])


@pytest.mark.parametrize("text", ["*", ">", "a.*", "a.>", "%2A", "%3E", "a.%2a.b"])
def test_pattern_is_no_name(text: str) -> None:
    with pytest.raises(TopicError, match="is a pattern"):
        parse_topic(text)


@pytest.mark.parametrize("text", [">.a", "a.>.b", "%3E.a"])
def test_rest_wildcard_is_allowed_only_at_the_end(text: str) -> None:
    with pytest.raises(TopicError, match="must be the last segment"):
        Patterns.parse([text])


@pytest.mark.parametrize("text", ["a*", "*a", "a>", "**", ">>", "a.b*"])
def test_wildcard_is_a_segment_of_its_own(text: str) -> None:
    with pytest.raises(TopicError, match="segments, between dots"):
        Patterns.parse([text])


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("orders.*", ["orders.eu", "orders.~"], ["orders", "orders.eu.de", "order.eu", "ordersXeu"]),
        ("orders.>", ["orders.eu", "orders.eu.de"], ["orders", "ordersXeu"]),
        ("*", ["a", "%C3%A9"], ["a.b"]),
        (">", ["a", "a.b", "a.b.c"], []),
        ("*.b", ["a.b"], ["b", "a.a.b", "a.b.b"]),
        ("%2A.%3e", ["a.b", "a.b.c"], ["a"]),
        ("a.b", ["a.b"], ["aXb", "a.b.c", "A.b"]),
    ],
)
def test_star_matches_one_segment_and_the_rest_wildcard_one_or_more(pattern: str, matching: list[str], others: list[str]) -> None:
    assert [topic for topic in matching + others if matches(pattern, topic)] == matching


@given(
    st.lists(st.sampled_from(["a", "b", "*"]), min_size=1, max_size=4),
    st.booleans(),
    st.lists(st.sampled_from("abc"), min_size=1, max_size=5),
)
def test_pattern_matches_by_its_definition(pattern: list[str], rest: bool, topic: list[str]) -> None:
    pattern = [*pattern, ">"] if rest else pattern
    assert matches(".".join(pattern), ".".join(topic)) == by_definition(pattern, topic)


@given(NAMES)
def test_name_is_a_pattern_that_matches_itself(name: str) -> None:
    assert parse_topic(name) == name
    assert matches(name, name)


def test_several_patterns_match_the_union_in_any_order_and_number() -> None:
    one, other = Patterns.parse(["b", "a.*", "b"]), Patterns.parse(["a.%2A", "b"])
    assert one == other
    assert hash(one) == hash(other)
    assert one.topics == ("b",)
    assert not one.match_all
    assert Patterns.parse(["a", ">"]).match_all
    assert [topic for topic in ("a", "b", "a.c", "b.c") if one.matcher().fullmatch(topic)] == ["b", "a.c"]


def test_too_many_patterns_are_refused_and_the_invalid_one_of_several_is_named() -> None:
    with pytest.raises(TopicError, match="has 65 patterns, allowed are 64"):
        Patterns.parse([f"t{number}" for number in range(65)])
    with pytest.raises(TopicError, match="'b c' has 'b c'"):
        Patterns.parse(["a", "b c"])
