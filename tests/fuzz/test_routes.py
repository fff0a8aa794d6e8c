"""Files of routes with any bytes: a table that serves, or one error that says where."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from gateway.access.key_sets import place_of
from gateway.policy.auth_table import Auth
from gateway.policy.cors import Cors
from gateway.policy.route_table import RouteError, RouteTable, read_routes
from gateway.policy.routes import Route
from tests.fuzz.fuzzing import TARGET, fuzz, joined, mutated
from tests.kit.stack import REPOSITORY

pytestmark = TARGET

TEXTS = st.text(max_size=8) | st.sampled_from(
    [
        "/", "/a", "/a/", "//", "/%2e", "/\0", "http://a", "https://a:1/b", "http://[::1]", "http://[", "http://a:99999", "http://a:x",
        "http://u:p@a", "direct", "shared", "resumable", "GET", "get", "G T", "*", "https://a.example", "https://*.a.example",
        "https://*", "null", "X-A", "x a", "authorization", "all", "by-address", "none", "api-keys", "jwt", "HS256", "events", "a\nb",
        "é", "a" * 300, "0" * 64, "PATH", "./missing", "/",
    ]
)  # fmt: skip
SCALARS = st.one_of(
    TEXTS,
    st.booleans(),
    st.integers(-2, 2**70),
    st.sampled_from([0, 1, 1e308, 1e-320, float("inf"), float("nan"), -0.0, datetime(2026, 1, 1, tzinfo=UTC), datetime(1, 1, 1).date()]),
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=2), max_leaves=4)
NAMES = [*Route.model_fields, "upstreams", "", "a.b"]
TABLES = {
    "cors": st.dictionaries(st.sampled_from([*Cors.model_fields, "origin"]), st.lists(TEXTS, max_size=2) | VALUES, max_size=4),
    "auth": st.dictionaries(st.sampled_from([*Auth.model_fields, "secret"]), st.lists(TEXTS, max_size=2) | VALUES, max_size=5),
    "request_headers": st.dictionaries(TEXTS, TEXTS, max_size=2),
}
PIECES = [
    b"[", b"]", b"[[", b"]]", b"[[routes]]", b"[routes]", b"[routes.cors]", b"[[routes.auth.keys]]", b"=", b".", b",", b"\n", b"\r", b"#",
    b'"', b"'", b'"""', b"\\", b"\\u0000", b"\\ud800", b"\0", b"\xff", b"\xef\xbb\xbf", b"{", b"}", b"path", b'path = "/"', b"inf",
    b"nan", b"0x", b"1_0", b"9" * 5000, b"1979-05-27", b"25:00:00", b"-0001-01-01T00:00:00Z", b"true",
    b"max_block_bytes = " + b"9" * 5000, b"[" * 2000, b"a = {" * 1000, b"a." * 3000, b'mode = "shared"\n', b"routes = 1\n",
]  # fmt: skip
BEGIN = b'[[routes]]\npath = "/a"\nupstream = "http://127.0.0.1:1"\n'


def _write(value: Any) -> str:
    match value:
        case bool() | str():
            return json.dumps(value, ensure_ascii=False)
        case int() | float():
            return repr(value)
        case list():
            return f"[{', '.join(map(_write, value))}]"
        case dict():
            return f"{{{', '.join(f'{json.dumps(name)} = {_write(each)}' for name, each in value.items())}}}"
        case _:
            return str(value.isoformat())


def _document(routes: list[dict[str, Any]]) -> bytes:
    lines = (
        line for route in routes for line in ("[[routes]]", *(f"{json.dumps(name)} = {_write(value)}" for name, value in route.items()))
    )
    return "\n".join(lines).encode("utf-8", "surrogatepass")


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    routes = []
    for number in range(draw(st.integers(1, 3))):
        route = {"path": f"/{number}", "upstream": "http://127.0.0.1:1", "mode": draw(st.sampled_from(["direct", "shared", "resumable"]))}
        route |= draw(st.dictionaries(st.sampled_from(NAMES), st.lists(TEXTS, max_size=2) | VALUES, max_size=3))
        for name, tables in TABLES.items():
            if draw(st.integers(0, 3)) == 0:
                route[name] = draw(tables)
        routes.append(route)
    return _document(routes)


def check_routes(file: Path, text: bytes) -> None:
    file.write_bytes(text)
    try:
        table = read_routes(file, "http://127.0.0.1:2")
    except RouteError as error:
        assert str(error).startswith(f"{file}: ")
        return
    _check_serves(table)


def _check_serves(table: RouteTable) -> None:
    for route in table.routes:
        found = table.find(route.path)
        assert found is route or route.path.endswith("/")
        assert all((route.timeout, route.subscriber_timeout, route.stream_kind, route.lower_path, route.tls))
        assert route.upstream_origin[2] in range(65536)
        table.subject_fields(route)
        assert table.by_path[route.path] is route
        if route.cors is not None:
            route.cors.answer_fields("https://b.a.example")
            route.cors.preflight_fields({"Origin": "https://a.example"}, route.methods)  # type: ignore[arg-type]  # has what is read of it
    assert all(map(place_of, table.key_urls()))
    assert all(mine is route for mine, route in zip(table.reuse(table).routes, table.routes, strict=True))


def test_routes(tmp_path: Path) -> None:
    examples = [BEGIN, (REPOSITORY / "gateway" / "routes.toml").read_bytes()]
    texts = documents() | mutated(examples, PIECES, 5) | st.tuples(st.just(BEGIN), joined(PIECES, 8)).map(b"".join)
    fuzz(check_routes, st.just(tmp_path / "routes.toml"), texts)
