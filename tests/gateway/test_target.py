"""What a request target asks for, and what else a server might take it for."""

import pytest

from gateway.policy.target import readings, split_target


@pytest.mark.parametrize(
    ("target", "authority", "rest"),
    [
        ("/a?b", "", "/a?b"),
        ("http://a:1/b?c", "a:1", "/b?c"),
        ("HTTPS://a", "a", "/"),
        ("http://a?b/c", "a", "/?b/c"),
        ("http://user@a/b", "user@a", "/b"),
        ("*", "", "*"),
    ],
)
def test_absolute_target_is_split_where_its_authority_ends(target: str, authority: str, rest: str) -> None:
    assert split_target(target) == (authority, rest)


@pytest.mark.parametrize("path", ["/", "/a/b/", "/a.b/..c/d..", "/a;b=c", "/~x/:@!$&'()*+,"])
def test_path_that_has_one_reading_has_no_others(path: str) -> None:
    assert not {*readings(path)} - {path}


@pytest.mark.parametrize(
    ("path", "reading"),
    [
        ("/a/../b", "/b"),
        ("/a/./b", "/a/b"),
        ("/a/..", "/"),
        ("/../../a", "/a"),
        ("/a/%2e%2E/b", "/b"),
        ("/a/..%2fb", "/b"),
        ("/%61", "/a"),
        ("/a%2Fb", "/a/b"),
        ("//a", "/a"),
        ("/a//b/", "/a/b/"),
        ("/a//../b", "/a/b"),
        ("/a//../b", "/b"),
        ("/a\\..\\b", "/b"),
        ("/a/..;x/b", "/b"),
        ("/a%2fb/../../c", "/c"),
        ("/a%2fb/../../c", "/a/b/../../c"),
    ],
)
def test_each_path_that_a_server_may_read_is_given(path: str, reading: str) -> None:
    assert reading in readings(path)
