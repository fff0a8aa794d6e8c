"""Which route serves a path, and what a file of routes may not say."""

from pathlib import Path

import pytest

from gateway.policy.route_table import RouteError, RouteTable, read_routes, single_route
from gateway.policy.routes import Route
from tests.kit.certificates import Authority
from tests.kit.gateway_process import run, start_refused

UPSTREAM = 'upstream = "http://127.0.0.1:8000"'


def table(*paths: str) -> RouteTable:
    return RouteTable(Route.model_validate({"path": path, "upstream": "http://127.0.0.1:8000"}) for path in paths)


def found(routes: RouteTable, path: str) -> str | None:
    route = routes.find(path)
    return route.path if route else None


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/", "/"),
        ("/other", "/"),
        ("/apix", "/"),
        ("/ap", "/"),
        ("/api", "/api"),
        ("/api/x", "/api"),
        ("/api/", "/api"),
        ("/api/v1", "/api/v1"),
        ("/api/v1/", "/api/v1"),
        ("/api/v1/x/y", "/api/v1"),
        ("/api/v10", "/api"),
        ("/API", "/"),
        ("/%61pi", "/"),
    ],
)
@pytest.mark.parametrize("order", [1, -1])
def test_longest_prefix_that_ends_at_a_segment_serves_the_path(path: str, route: str, order: int) -> None:
    assert found(table(*["/", "/api", "/api/v1"][::order]), path) == route


@pytest.mark.parametrize(("path", "serves"), [("/api", False), ("/api/", True), ("/api/x", True), ("/apix", False), ("/api//", True)])
def test_prefix_with_a_trailing_slash_serves_only_paths_below_it(path: str, serves: bool) -> None:
    assert (found(table("/api/"), path) is not None) is serves


def test_prefix_with_a_slash_is_longer_than_that_without() -> None:
    routes = table("/api", "/api/")
    assert (found(routes, "/api"), found(routes, "/api/")) == ("/api", "/api/")


def test_path_that_no_prefix_covers_has_no_route() -> None:
    assert found(table("/api"), "/") is None


def test_methods_are_upper_cased() -> None:
    route = Route.model_validate({"path": "/", "upstream": "http://h", "methods": ["get", "Post"]})
    assert route.methods == ("GET", "POST")


@pytest.mark.parametrize(
    ("upstream", "kept"),
    [
        ("http://h:8000", "http://h:8000"),
        ("http://h:8000/", "http://h:8000"),
        ("https://h/base/v1", "https://h/base/v1"),
        ("http://h/base/", "http://h/base"),
        ("http://[::1]:8000/%7Ea", "http://[::1]:8000/%7Ea"),
    ],
)
def test_path_of_the_upstream_url_is_kept_without_a_slash_at_its_end(upstream: str, kept: str) -> None:
    assert single_route(upstream).routes[0].upstream == kept


def test_single_route_serves_every_path_by_the_defaults() -> None:
    routes = single_route("http://127.0.0.1:8000")
    assert routes.find("/any/path") is routes.find("/")
    route = routes.routes[0]
    assert (route.path, route.mode, route.methods, route.on_upstream_loss) == ("/", "direct", (), "abort")
    assert (route.heartbeat_seconds, route.idle_timeout_seconds, route.max_block_bytes) == (15, 0, 8 * 2**20)


def test_every_key_of_a_route_is_documented_and_read(tmp_path: Path, authority: Authority) -> None:
    for name, field in Route.model_fields.items():
        assert field.description, name
    file = tmp_path / "gateway.toml"
    client = authority.issue("client", client=True)
    file.write_text(f"""
        [[routes]]
        path = "/llm"
        upstream = "https://llm.example/v1"
        ca_file = "{authority.file}"
        client_certificate_file = "{client.file}"
        client_key_file = "{client.key_file}"
        mode = "shared"
        methods = ["get"]
        connect_timeout_seconds = 1
        first_byte_timeout_seconds = 2.5
        idle_timeout_seconds = 3
        body_timeout_seconds = 3.5
        heartbeat_seconds = 0
        max_block_bytes = 1024
        on_upstream_loss = "error-event"
        share_by = ["Authorization"]
        public = true
        query_parameters = ["topic"]
        begin_parameters = ["from"]
        private_parameters = ["limit"]
        wait_seconds = 9
        linger_seconds = 4
        initial = "history"
        history_max_blocks = 5
        history_max_bytes = 6
        history_max_age_seconds = 7
        ids = "assign"
        gap_events = false
        max_connection_seconds = 8
        preserve_host = true
        request_headers = {{ Authorization = "Bearer x", Cookie = "" }}
        [routes.response_headers]
        Server = ""
        """)
    (route,) = read_routes(file).routes
    assert route.model_dump() == {
        "path": "/llm",
        "upstream": "https://llm.example/v1",
        "ca_file": str(authority.file),
        "client_certificate_file": str(client.file),
        "client_key_file": str(client.key_file),
        "mode": "shared",
        "methods": ("GET",),
        "connect_timeout_seconds": 1,
        "first_byte_timeout_seconds": 2.5,
        "idle_timeout_seconds": 3,
        "body_timeout_seconds": 3.5,
        "heartbeat_seconds": 0,
        "max_block_bytes": 1024,
        "on_upstream_loss": "error-event",
        "share_by": ("authorization",),
        "public": True,
        "query_parameters": ("topic",),
        "begin_parameters": ("from",),
        "private_parameters": ("limit",),
        "wait_seconds": 9,
        "linger_seconds": 4,
        "initial": "history",
        "history_max_blocks": 5,
        "history_max_bytes": 6,
        "history_max_age_seconds": 7,
        "ids": "assign",
        "gap_events": False,
        "max_connection_seconds": 8,
        "max_stream_bytes": 16 * 2**20,
        "max_kept_body_bytes": 16 * 2**20,
        "retain_seconds": 300,
        "orphan_seconds": 60,
        "credential_fields": ("Authorization", "X-Api-Key", "Api-Key"),
        "credential_cookies": "all",
        "credential_parameters": ("key", "api_key", "access_token", "token"),
        "anonymous_keys": "by-address",
        "resume": None,
        "cors": None,
        "auth": None,
        "preserve_host": True,
        "request_headers": {"Authorization": "Bearer x", "Cookie": ""},
        "response_headers": {"Server": ""},
    }


def test_keys_of_another_mode_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text("[[routes]]\npath = '/'\nupstream = 'http://a'\nlinger_seconds = 1")
    with pytest.raises(RouteError, match="route 1 \\(/\\): linger_seconds requires mode = 'shared', got mode = 'direct'"):
        read_routes(file)


def one_route(*lines: str) -> str:
    return "\n".join(["[[routes]]", 'path = "/ok"', UPSTREAM, "", "[[routes]]", *lines])


BAD_FILES = {
    "endless heartbeat": (one_route('path = "/a"', UPSTREAM, "heartbeat_seconds = inf"), ["heartbeat_seconds = inf", "finite"]),
    "endless idle time-out": (one_route('path = "/a"', UPSTREAM, "idle_timeout_seconds = inf"), ["idle_timeout_seconds = inf", "finite"]),
    "blank in a field name": (one_route('path = "/a"', UPSTREAM, 'request_headers = { "X Y" = "1" }'), ["'X Y' is not a field name"]),
    "line end in a field": (
        one_route('path = "/a"', UPSTREAM, 'response_headers = { X = "a\\nb" }'),
        ["the value of X contains"],
    ),
    "blank in a URL": (one_route('path = "/a"', 'upstream = "http://ho st"'), ["upstream = 'http://ho st'", "without blanks"]),
    "blank in a method": (one_route('path = "/a"', UPSTREAM, 'methods = ["G ET"]'), ["'G ET' is not a method"]),
    "letter beyond ASCII in a path": (one_route('path = "/ä"', UPSTREAM), ["path = '/ä'", "percent-encode"]),
    "unknown key": (
        one_route('path = "/a"', UPSTREAM, "heartbeat_second = 5"),
        ["route 2 (/a)", "unknown key 'heartbeat_second'", "the nearest is 'heartbeat_seconds'", *Route.model_fields],
    ),
    "unknown table": ("[[route]]\n" + UPSTREAM, ["unknown key 'route'", "the only key allowed is routes"]),
    "one table for an array": ('[routes]\npath = "/a"\n' + UPSTREAM, ["routes must be an array of tables, written [[routes]]"]),
    "array of other things": ('routes = ["/a"]', ["routes must be an array of tables, written [[routes]]"]),
    "missing upstream": (one_route('path = "/a"'), ["route 2 (/a)", "key 'upstream' is missing"]),
    "missing path": (one_route(UPSTREAM), ["route 2 (without path)", "key 'path' is missing"]),
    "relative path": (one_route('path = "a"', UPSTREAM), ["route 2 (a)", "path = 'a'", "must begin with /"]),
    "path with a query": (one_route('path = "/a?b"', UPSTREAM), ["path = '/a?b'", "no ?, # or blank"]),
    "not a URL": (
        one_route('path = "/a"', 'upstream = "localhost:8000"'),
        ["route 2 (/a)", "upstream = 'localhost:8000'", "http://host:port"],
    ),
    "other scheme": (one_route('path = "/a"', 'upstream = "ftp://h"'), ["upstream = 'ftp://h'", "http://host:port or https://host/prefix"]),
    "no host": (one_route('path = "/a"', 'upstream = "http:///x"'), ["upstream = 'http:///x'", "http://host:port"]),
    "port out of range": (one_route('path = "/a"', 'upstream = "http://h:99999"'), ["upstream = 'http://h:99999'", "0-65535"]),
    "URL with a query": (one_route('path = "/a"', 'upstream = "http://h/?b"'), ["upstream", "must not contain a query or a fragment"]),
    "credentials in the URL": (one_route('path = "/a"', 'upstream = "http://me:pw@h"'), ["upstream", "credentials", "request_headers"]),
    "wrong type": (
        one_route('path = "/a"', UPSTREAM, 'heartbeat_seconds = "soon"'),
        ["route 2 (/a)", "heartbeat_seconds = 'soon'", "number"],
    ),
    "methods not an array": (one_route('path = "/a"', UPSTREAM, 'methods = "GET"'), ["route 2 (/a)", "methods = 'GET'"]),
    "header rule not text": (one_route('path = "/a"', UPSTREAM, "request_headers = {X = 1}"), ["request_headers.X = 1", "string"]),
    "time below its bound": (
        one_route('path = "/a"', UPSTREAM, "connect_timeout_seconds = 0"),
        ["connect_timeout_seconds = 0", "greater than 0"],
    ),
    "block limit below 1": (
        one_route('path = "/a"', UPSTREAM, "max_block_bytes = 0"),
        ["max_block_bytes = 0", "greater than or equal to 1"],
    ),
    "unknown mode": (one_route('path = "/a"', UPSTREAM, 'mode = "share"'), ["route 2 (/a)", "mode = 'share'", "'direct'"]),
    "unknown ending": (
        one_route('path = "/a"', UPSTREAM, 'on_upstream_loss = "retry"'),
        ["on_upstream_loss = 'retry'", "'abort' or 'error-event'"],
    ),
    "two faults": (one_route('path = "a"', "upstream = 5"), ["path = 'a'", "upstream = 5"]),
    "syntax": ("[[routes]]\npath = /a\n", ["line 2"]),
    "key twice": ('[[routes]]\npath = "/a"\npath = "/b"\n', ["line 3"]),
    "no routes": ("", ["no routes", "[[routes]]", "path and upstream"]),
    "duplicate paths": (one_route('path = "/ok"', UPSTREAM), ["each route needs its own path, got '/ok' twice"]),
}


def test_password_in_a_url_is_refused_without_repeating_it(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text('[[routes]]\npath = "/"\nupstream = "http://me:hunter2@h"')
    with pytest.raises(RouteError, match="credentials") as refusal:
        read_routes(file)
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize("fault", BAD_FILES)
def test_bad_file_is_refused_with_the_error_and_the_allowed_values(fault: str, tmp_path: Path) -> None:
    text, said = BAD_FILES[fault]
    file = tmp_path / "gateway.toml"
    file.write_text(text)
    with pytest.raises(RouteError) as refusal:
        read_routes(file)
    message = str(refusal.value)
    assert message.startswith(f"{file}: ")
    assert message.count(str(file)) == 1
    for part in said:
        assert part in message
    assert "\n" not in message


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RouteError, match=r"missing\.toml.*No such file"):
        read_routes(tmp_path / "missing.toml")


def test_directory_in_place_of_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RouteError, match=r"Is a directory"):
        read_routes(tmp_path)


def test_file_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_bytes(b'[[routes]]\npath = "/\xff"\n')
    with pytest.raises(RouteError, match=r"gateway\.toml: .*utf-8"):
        read_routes(file)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("max_block_bytes = " + "9" * 5000, "Exceeds the limit"),
        ("methods = " + "[" * 2000, "arrays or tables are nested too deeply"),
        ("cors = " + "{a = " * 2000, "arrays or tables are nested too deeply"),
    ],
    ids=["number", "arrays", "tables"],
)
def test_file_that_python_cannot_read_although_it_may_be_toml_is_named(tmp_path: Path, line: str, said: str) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(one_route('path = "/a"', UPSTREAM, line))
    with pytest.raises(RouteError, match=rf"gateway\.toml: {said}"):
        read_routes(file)


def test_bad_file_stops_the_start_with_status_2(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(one_route('path = "/a"', UPSTREAM, "heartbeat_second = 5"))
    answer = run(CONFIG=str(file))
    assert answer.returncode == 2
    assert answer.stderr.startswith(
        f"gateway: {file}: route 2 (/a): unknown key 'heartbeat_second', the nearest is 'heartbeat_seconds'; allowed are path,"
    )
    assert answer.stderr.count("\n") == 1
    assert answer.stdout == ""  # not even "listening"


def test_bad_upstream_in_the_environment_stops_the_start_with_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GATEWAY_CONFIG", raising=False)
    monkeypatch.setenv("GATEWAY_UPSTREAM", "localhost:8000")
    status, said = start_refused(monkeypatch, capsys)
    assert status == 2
    assert said.startswith("gateway: route 1 (/): upstream = 'localhost:8000': must be a URL such as http://host:port")
