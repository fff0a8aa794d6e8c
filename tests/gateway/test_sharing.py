"""Requests that share a stream: a client never gets a stream with another client's credentials."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.modes.shared.sharing import Identity, identify, request_fields, share_target
from gateway.policy.routes import Route


def shared(**keys: Any) -> Route:
    return Route(path="/", upstream="http://upstream", mode="shared", **keys)


def identity(route: Route, headers: Mapping[str, str] | None = None, method: str = "GET") -> Identity | None:
    return identify(method, CIMultiDictProxy(CIMultiDict(headers or {})), route)


def test_requests_without_credentials_are_shared() -> None:
    assert identity(shared()) == ()
    assert identity(shared(), {"User-Agent": "a", "Accept-Language": "de"}) == identity(shared(), {"User-Agent": "b"})


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "get"])
@pytest.mark.parametrize("route", [shared(), shared(public=True)], ids=["not public", "public"])
def test_other_methods_than_get_are_not_shared(method: str, route: Route) -> None:
    assert identity(route, method=method) is None


def test_part_of_a_body_is_not_shared() -> None:
    assert identity(shared(public=True), {"Range": "bytes=0-"}) is None


def test_request_that_excludes_event_streams_is_not_shared() -> None:
    assert identity(shared(public=True), {"Accept": "application/json"}) is None
    assert identity(shared(), {"Accept": "*/*"}) == identity(shared(), {"Accept": "text/event-stream"}) == ()


@pytest.mark.parametrize("name", ["Authorization", "Cookie", "authorization", "COOKIE"])
def test_credentials_that_the_route_says_nothing_about_are_not_shared(name: str) -> None:
    assert identity(shared(), {name: "secret"}) is None
    assert identity(shared(share_by=["x-tenant"]), {name: "secret", "X-Tenant": "a"}) is None


def test_one_credential_named_does_not_allow_the_other() -> None:
    route = shared(share_by=["authorization"])
    assert identity(route, {"Authorization": "a", "Cookie": "b"}) is None
    assert identity(route, {"Authorization": "a"}) == (("authorization", "a"),)


def test_credentials_in_share_by_distinguish_requests() -> None:
    route = shared(share_by=["Authorization", "cookie"])
    found = [
        identity(route, headers)
        for headers in (
            {},
            {"Authorization": "a"},
            {"Authorization": "b"},
            {"Cookie": "a"},
            {"Authorization": "a", "Cookie": "a"},
            {"Authorization": ""},
        )
    ]
    assert None not in found
    assert len(set(found)) == len(found)
    assert identity(route, {"cookie": "a", "AUTHORIZATION": "a"}) == found[4]


def test_credentials_do_not_matter_on_a_public_route_and_are_not_forwarded() -> None:
    route = shared(public=True)
    anybody = identity(route, {"Authorization": "a", "Cookie": "b"})
    assert anybody == identity(route) == ()
    assert "Authorization" not in request_fields(anybody, route)
    assert "Cookie" not in request_fields(anybody, route)


def test_public_route_may_share_by_a_field_all_the_same() -> None:
    route = shared(public=True, share_by=["cookie"])
    assert identity(route, {"Cookie": "a"}) != identity(route, {"Cookie": "b"})
    assert identity(route, {"Cookie": "a", "Authorization": "x"}) == identity(route, {"Cookie": "a"})


def test_origin_distinguishes_requests_because_an_answer_may_depend_on_it() -> None:
    assert identity(shared(), {"Origin": "https://a"}) != identity(shared(), {"Origin": "https://b"})
    assert identity(shared(), {"Origin": "https://a"}) != identity(shared())


@pytest.mark.parametrize("name", ["Access-Control-Allow-Origin", "access-control-allow-origin"])
def test_origin_does_not_matter_where_the_route_answers_it_itself(name: str) -> None:
    route = shared(response_headers={name: "*"})
    assert identity(route, {"Origin": "https://a"}) == identity(route, {"Origin": "https://b"}) == ()


def test_upstream_request_has_only_the_distinguishing_fields_of_the_client() -> None:
    route = shared(share_by=["authorization", "x-tenant"], request_headers={"X-Key": "k", "X-Tenant": ""})
    headers = {"Authorization": "a", "X-Tenant": "t", "Origin": "https://a", "X-Other": "o", "User-Agent": "u", "Last-Event-ID": "7"}
    found = identity(route, headers)
    assert found is not None
    fields = request_fields(found, route)
    assert fields.pop("Via")
    assert dict(fields) == {"authorization": "a", "origin": "https://a", "X-Key": "k"}


FIELDS = st.dictionaries(
    st.sampled_from(["Authorization", "Cookie", "Origin", "X-Tenant", "X-Other"]), st.text("ab", max_size=2), max_size=5
)
ROUTES = st.builds(shared, share_by=st.lists(st.sampled_from(["authorization", "cookie", "x-tenant"]), unique=True), public=st.booleans())


@given(route=ROUTES, one=FIELDS, other=FIELDS)
def test_requests_share_a_stream_only_if_the_upstream_cannot_distinguish_them(
    route: Route, one: dict[str, str], other: dict[str, str]
) -> None:
    first, second = identity(route, one), identity(route, other)
    if first is None or first != second:
        return
    for name in ("Authorization", "Cookie"):
        assert route.public or one.get(name) == other.get(name), (
            "not public, and yet a client gets a stream that another client's credentials opened"
        )
    assert all(one.get(name) == other.get(name) for name in ("Origin", *(name for name in one if name.lower() in route.share_by)))


@pytest.mark.parametrize("target", ["/a", "/a?", "/a?b=1&c=2", "/a?b=1&b=1", "/%61?c;d"])
def test_target_is_shared_as_it_came(target: str) -> None:
    assert share_target(target, shared()) == target


@pytest.mark.parametrize(
    ("target", "kept"),
    [
        ("/a?from=3", "/a"),
        ("/a?from=3&b=1", "/a?b=1"),
        ("/a?b=1&from=3&c=%20", "/a?b=1&c=%20"),
        ("/a?from", "/a"),
        ("/a?fr%6fm=3&b", "/a?b"),
        ("/a?from=1&from=2", "/a"),
        ("/a?From=3", "/a?From=3"),
        ("/a?b=from", "/a?b=from"),
        ("/a?", "/a?"),
    ],
)
def test_parameters_that_say_where_to_begin_make_no_stream_of_their_own(target: str, kept: str) -> None:
    assert share_target(target, shared(begin_parameters=["from"])) == kept


@pytest.mark.parametrize("target", ["/a?token=x", "/a?b=1&token=x", "/a?t%6Fken=x", "/a?token", "/a?from=1&token=x"])
def test_private_parameter_prevents_sharing(target: str) -> None:
    route = shared(private_parameters=["token"], begin_parameters=["from"])
    assert share_target(target, route) is None
    assert share_target(target, shared()) == target
