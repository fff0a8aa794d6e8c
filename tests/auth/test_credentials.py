"""Test how a credential is removed from a request's target."""

from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.credentials import cut_parameter

PIECES = ["key", "k%65y", "%6B%45y", "kez", "=", "&", "%", "+", ";", "?", "a", "%26", "%3d", "x=y", "é", "\udcff"]
queries = st.lists(st.sampled_from(PIECES))


@given(queries.map("".join))
def test_parameter_is_removed_in_any_spelling_and_the_rest_is_unchanged(query: str) -> None:
    target, values = cut_parameter(f"/p?{query}", "key")
    _, _, rest = target.partition("?")
    before, after = (parse_qsl(text, keep_blank_values=True) for text in (query, rest))
    assert values == [value for name, value in before if name == "key"]
    assert after == [(name, value) for name, value in before if name != "key"]
    assert [part for part in rest.split("&") if part] == [part for part in query.split("&") if part and part in rest.split("&")]
    if not values:
        assert target == f"/p?{query}"


@pytest.mark.parametrize(
    ("target", "left"),
    [
        ("/p?key=x", "/p"),
        ("/p?a&key=x", "/p?a"),
        ("/p?key=x&a", "/p?a"),
        ("/p?a=%20&&key&b=+", "/p?a=%20&&b=+"),
        ("/p?KEY=x", "/p?KEY=x"),
        ("/key=x", "/key=x"),
        ("/p?a=key=x", "/p?a=key=x"),
    ],
)
def test_only_the_parameter_is_removed(target: str, left: str) -> None:
    assert cut_parameter(target, "key")[0] == left
    assert cut_parameter(target, "") == (target, [])
