"""Which pages of other origins may ask and read: routes with a table `cors`."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from multidict import CIMultiDict, CIMultiDictProxy
from pydantic import ValidationError

from gateway.modes.shared.sharing import identify
from gateway.policy.cors import Cors
from gateway.policy.route_table import RouteError, RouteTable, read_routes
from gateway.policy.routes import Route
from tests.kit.documentation import DOCUMENTATION
from tests.kit.downstream import Answer, Downstream
from tests.kit.gateway import serving
from tests.kit.stage import Scene, Stage
from tests.kit.upstream import EVENT_STREAM_HEAD, LAST_CHUNK, Silence, chunk

APP, OTHER, STRANGER = "https://app.example", "https://other.example", "https://stranger.example"
TABLE = {"origins": [APP, OTHER, "https://*.sub.example:8443"], "credentials": True, "max_age_seconds": 60}
UPSTREAMS_WORD = (
    b"Access-Control-Allow-Origin: https://upstream.example\r\nAccess-Control-Allow-Credentials: true\r\n"
    b"Access-Control-Expose-Headers: X-Secret\r\nVary: Accept\r\n"
)
HEAD = EVENT_STREAM_HEAD.removesuffix(b"\r\n") + UPSTREAMS_WORD + b"\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + UPSTREAMS_WORD + b"\r\nok"


def fields(**options: Any) -> Cors:
    return Cors.model_validate({"origins": [APP]} | options)


@pytest.mark.parametrize(
    ("allowed", "origin"),
    [
        (APP, APP),
        ("http://localhost:5173", "http://localhost:5173"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("*", "null"),
        ("https://*.app.example", "https://a.app.example"),
        ("https://*.app.example", "https://a.b-1.app.example"),
        ("https://*.app.example:8443", "https://a.app.example:8443"),
    ],
)
def test_origin_is_allowed(allowed: str, origin: str) -> None:
    assert fields(origins=[allowed]).allows(origin)


@pytest.mark.parametrize(
    ("allowed", "origin"),
    [
        (APP, "http://app.example"),
        (APP, "https://app.example:8443"),
        (APP, "https://app.example.evil.example"),
        (APP, "https://APP.example"),
        (APP, "null"),
        (APP, ""),
        ("https://*.app.example", "https://app.example"),
        ("https://*.app.example", "https://.app.example"),
        ("https://*.app.example", "https://evilapp.example"),
        ("https://*.app.example", "http://a.app.example"),
        ("https://*.app.example", "https://a.app.example:8443"),
        ("https://*.app.example", "https://a.app.example.evil.example"),
        ("https://*.app.example", "https://evil.example/.app.example"),
        ("https://*.app.example", "https://evil.example?.app.example"),
        ("https://*.app.example", "https://user@a.app.example"),
        ("https://*.app.example", "https://evil.example:80.app.example"),
    ],
)
def test_origin_is_not_allowed(allowed: str, origin: str) -> None:
    assert not fields(origins=[allowed]).allows(origin)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"origins": ["*"], "credentials": True}, "browsers reject * with credentials; name each of the origins"),
        ({"methods": ["*"], "credentials": True}, "name each of the methods"),
        ({"headers": ["*"], "credentials": True}, "name each of the headers"),
        ({"expose": ["*"], "credentials": True}, "name each of the expose"),
        ({"origins": []}, "must name at least one origin"),
        ({"origins": ["*", APP]}, "* must be the only origin"),
        ({"origins": ["https://app.example/"]}, "'https://app.example/' is not an origin; write scheme://host"),
        ({"origins": ["https://App.example"]}, "in lower case"),
        ({"origins": ["app.example"]}, "is not an origin"),
        ({"origins": ["null"]}, "is not an origin"),
        ({"origins": ["https://*.example"]}, "is not an origin"),
        ({"origins": ["https://a*.app.example"]}, "is not an origin"),
        ({"origins": ["https://app.example:443"]}, "remove the default port"),
        ({"methods": ["GET POST"]}, "'GET POST' is not a method"),
        ({"headers": ["X Y"]}, "'X Y' is not a field name"),
        ({"max_age_seconds": -1}, "greater than or equal to 0"),
    ],
)
def test_table_that_makes_no_sense_is_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError) as refused:
        fields(**options)
    assert reason in str(refused.value)


def refusal(tmp_path: Path, text: str) -> str:
    file = tmp_path / "routes.toml"
    file.write_text(f'[[routes]]\npath = "/"\nupstream = "http://a"\n{text}')
    with pytest.raises(RouteError) as refused:
        read_routes(file)
    return str(refused.value)


def test_start_is_refused_with_the_key_and_the_allowed_values(tmp_path: Path) -> None:
    asterisk = refusal(tmp_path, '[routes.cors]\norigins = ["*"]\ncredentials = true')
    assert "route 1 (/): cors = " in asterisk
    assert "origins = ['*'] and credentials = true: browsers reject * with credentials" in asterisk
    unknown = refusal(tmp_path, '[routes.cors]\norigin = ["*"]')
    assert "route 1 (/): unknown key 'cors.origin', the nearest is 'origins'; allowed are origins, credentials, methods" in unknown
    assert "key 'cors.origins' is missing" in refusal(tmp_path, "[routes.cors]\ncredentials = true")
    twice = refusal(tmp_path, 'response_headers = { "access-control-allow-origin" = "*" }\n[routes.cors]\norigins = ["*"]')
    assert "response_headers and the table cors both set access-control-allow-origin; remove one of them" in twice


def test_origin_does_not_split_a_shared_stream(tmp_path: Path) -> None:
    file = tmp_path / "routes.toml"
    file.write_text('[[routes]]\npath = "/"\nupstream = "http://a"\nmode = "shared"\n[routes.cors]\norigins = ["https://app.example"]')
    [route] = read_routes(file).routes
    assert [identify("GET", CIMultiDict(headers), route) for headers in ({"Origin": APP}, {"Origin": STRANGER}, {})] == [()] * 3


def test_streams_follow_the_table_that_their_route_has_now() -> None:
    def routes(*keys: dict[str, Any]) -> RouteTable:
        return RouteTable(Route.model_validate({"upstream": "http://a", "mode": "resumable"} | each) for each in keys)

    table = routes({"path": "/a", "cors": {"origins": [APP]}}, {"path": "/b"})
    assert [cors and cors.origins for cors in (table.cors_of_streams(APP, "/a"), table.cors_of_streams(APP, "/b"))] == [(APP,), None]
    assert table.cors_of_streams(APP, "/gone") is None
    assert [table.cors_of_streams(origin) is not None for origin in (APP, STRANGER)] == [True, False]
    table = routes({"path": "/a", "cors": {"origins": [OTHER]}})
    assert [table.cors_of_streams(origin) is not None for origin in (APP, OTHER)] == [False, True]


def asked(**headers: str) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()}))


@pytest.mark.parametrize(
    ("methods", "of_route", "allowed"),
    [
        ([], [], "PATCH"),  # what is asked for
        ([], ["GET", "POST"], "GET, POST"),
        (["POST"], [], "POST"),
        (["post", "DELETE"], ["GET", "POST"], "POST"),
        (["*"], [], "*"),
    ],
)
def test_preflight_names_the_methods_that_route_and_table_allow(methods: list[str], of_route: list[str], allowed: str) -> None:
    said = fields(methods=methods).preflight_fields(asked(Origin=APP, Access_Control_Request_Method="PATCH"), of_route)
    assert said["Access-Control-Allow-Methods"] == allowed


def test_preflight_does_not_echo_an_invalid_method() -> None:
    said = fields().preflight_fields(asked(Origin=APP, Access_Control_Request_Method="GET, DELETE"), [])
    assert said["Access-Control-Allow-Methods"] == ""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage() -> AsyncIterator[Stage]:
    async with Stage() as stage:
        yield stage


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def port(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[int]:
    def route(path: str, **keys: object) -> dict[str, Any]:
        return {"path": path, "upstream": stage.url, "heartbeat_seconds": 0} | keys

    routes = [
        route("/direct", cors=TABLE),
        route("/post", cors=TABLE, methods=["POST"]),
        route("/any", cors={"origins": ["*"], "headers": ["*"], "expose": []}),
        route("/shared", mode="shared", cors=TABLE, share_by=["x-scene"]),
        route("/kept", mode="resumable", cors=TABLE, retain_seconds=300),
        route("/brief", mode="resumable", cors=TABLE, retain_seconds=0),
        route("/upstreams-kept", mode="resumable"),
        route("/upstreams", methods=["GET", "OPTIONS"]),
        route("/nowhere", upstream="http://127.0.0.1:9", cors=TABLE),
        route("/guarded", cors=TABLE, auth={"kind": "api-keys", "keys": [{"name": "a", "sha256": "0" * 64}]}),
    ]
    async with serving(routes, tmp_path_factory.mktemp("cors"), max_streams_per_client=20, max_request_body_bytes=10) as port:
        yield port


class Browser:
    """Asks as a page does, each time on a connection of its own."""

    def __init__(self, port: int, connections: contextlib.AsyncExitStack) -> None:
        self._port = port
        self._connections = connections

    async def ask(
        self,
        target: str,
        origin: str | None = APP,
        *,
        method: str = "GET",
        scene: Scene | None = None,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
    ) -> Answer:
        downstream = await self._connections.enter_async_context(Downstream(self._port))
        of_origin = [("Origin", origin)] if origin is not None else []
        await downstream.ask(target, method, [*of_origin, *(scene.headers if scene else ()), *headers], body)
        return await downstream.answer(method)

    async def preflight(self, target: str, origin: str = APP, *, method: str = "POST") -> Answer:
        asking = [("Access-Control-Request-Method", method), ("Access-Control-Request-Headers", "last-event-id")]
        return await self.ask(target, origin, method="OPTIONS", headers=asking)


@pytest_asyncio.fixture(loop_scope="module")
async def browser(port: int) -> AsyncIterator[Browser]:
    async with contextlib.AsyncExitStack() as connections:
        yield Browser(port, connections)


def assert_is_for(answer: Answer, origin: str) -> None:
    """Check that the page of `origin` may read the answer, with credentials or not, and that caches know that others may not."""
    head = answer.head
    assert head.values("Access-Control-Allow-Origin") == [origin]
    assert head.values("Access-Control-Allow-Credentials") == ["true"]
    assert "Stream-Id" in (head.value("Access-Control-Expose-Headers") or "")
    assert "X-Secret" not in (head.value("Access-Control-Expose-Headers") or "")
    assert "Origin" in (head.value("Vary") or "").split(", ")


def assert_is_for_no_page(answer: Answer) -> None:
    assert [name for name, _ in answer.head.fields if name.lower().startswith("access-control-")] == []
    assert "Origin" in (answer.head.value("Vary") or "").split(", ")


in_module_loop = pytest.mark.asyncio(loop_scope="module")


@in_module_loop
async def test_preflight_is_answered_without_asking_upstream(browser: Browser, stage: Stage) -> None:
    strays = len(stage.strays)
    for target in ("/direct", "/post", "/shared/x", "/kept", "/nowhere", "/guarded"):
        answer = await browser.preflight(target)
        assert answer.head.status == 204
        assert_is_for(answer, APP)
        assert answer.head.value("Access-Control-Allow-Methods") == "POST"
        assert "Last-Event-ID" in (answer.head.value("Access-Control-Allow-Headers") or "")
        assert answer.head.value("Access-Control-Max-Age") == "60"
    assert len(stage.strays) == strays


@in_module_loop
async def test_preflight_of_a_page_that_may_not_is_answered_with_nothing(browser: Browser) -> None:
    answer = await browser.preflight("/direct", STRANGER)
    assert answer.head.status == 204
    assert_is_for_no_page(answer)


@in_module_loop
async def test_options_that_is_no_preflight_goes_upstream(browser: Browser, stage: Stage) -> None:
    scene = stage.scene(OK)
    answer = await browser.ask("/direct", method="OPTIONS", scene=scene)
    assert (answer.head.status, len(scene.requests)) == (200, 1)
    assert_is_for(answer, APP)


@in_module_loop
@pytest.mark.parametrize("target", ["/direct", "/shared", "/kept", "/brief"])
@pytest.mark.parametrize("origin", [APP, OTHER, "https://a.sub.example:8443"])
async def test_answer_is_for_the_page_that_asks_whatever_upstream_says(browser: Browser, stage: Stage, target: str, origin: str) -> None:
    scene = stage.scene(HEAD, chunk(b"data: x\n\n"), LAST_CHUNK)
    method, body = ("GET", b"") if target in ("/direct", "/shared") else ("POST", b"{}")
    answer = await browser.ask(target, origin, method=method, scene=scene, body=body)
    assert (answer.head.status, answer.head.value("Content-Type")) == (200, "text/event-stream")
    assert_is_for(answer, origin)
    assert answer.head.value("Vary") == "Accept, Origin"


@in_module_loop
async def test_page_that_may_not_gets_an_answer_that_browsers_keep_from_it(browser: Browser, stage: Stage) -> None:
    scene = stage.scene(OK)
    for origin in (STRANGER, None):
        answer = await browser.ask("/direct", origin, scene=scene)
        assert answer.head.status == 200
        assert_is_for_no_page(answer)


@in_module_loop
async def test_any_origin_needs_no_vary(browser: Browser, stage: Stage) -> None:
    answer = await browser.ask("/any", "null", scene=stage.scene(OK))
    names = [name for name, _ in answer.head.fields if name.lower().startswith("access-control-")]
    assert (names, answer.head.value("Access-Control-Allow-Origin")) == (["Access-Control-Allow-Origin"], "*")
    assert answer.head.value("Vary") == "Accept"
    assert (await browser.preflight("/any")).head.value("Access-Control-Allow-Headers") == "*"


@in_module_loop
async def test_without_a_table_all_is_upstreams_word(browser: Browser, stage: Stage) -> None:
    answer = await browser.ask("/upstreams", scene=stage.scene(OK))
    assert answer.head.value("Access-Control-Allow-Origin") == "https://upstream.example"
    assert answer.head.value("Access-Control-Expose-Headers") == "X-Secret"
    assert answer.head.value("Vary") == "Accept"
    scene = stage.scene(OK)
    asking = [("Access-Control-Request-Method", "POST"), *scene.headers]
    assert (await browser.ask("/upstreams", method="OPTIONS", headers=asking)).head.status == 200
    assert len(scene.requests) == 1


@in_module_loop
@pytest.mark.parametrize(
    ("target", "method", "body", "status"),
    [("/nowhere", "GET", b"", 502), ("/post", "GET", b"", 405), ("/direct", "POST", b"x" * 11, 413), ("/guarded", "GET", b"", 401)],
)
async def test_errors_are_for_the_page_too(browser: Browser, target: str, method: str, body: bytes, status: int) -> None:
    answer = await browser.ask(target, method=method, body=body)
    assert answer.head.status == status
    assert_is_for(answer, APP)
    assert answer.head.value("X-Request-Id")


@in_module_loop
async def test_refusal_of_one_stream_too_many_is_for_the_page_too(browser: Browser, stage: Stage) -> None:
    scene = stage.scene(HEAD, Silence())
    for _ in range(20):
        assert (await browser.ask("/direct", scene=scene)).head.status == 200
    for target in ("/direct", f"/streams/{'0' * 32}"):
        answer = await browser.ask(target)
        assert answer.head.status == 429
        assert_is_for(answer, APP)
    assert (await browser.preflight("/direct")).head.status == 204


async def kept(browser: Browser, stage: Stage, target: str = "/kept", **options: Any) -> Answer:
    """Read a stream to its end."""
    answer = await browser.ask(target, method="POST", body=b"{}", scene=stage.scene(HEAD, chunk(b"data: x\n\n"), LAST_CHUNK), **options)
    await answer.to_end()
    return answer


@in_module_loop
async def test_kept_stream_is_for_each_page_that_comes_for_it(browser: Browser, stage: Stage) -> None:
    stream = (await kept(browser, stage)).head.value("Location") or ""
    for origin in (APP, OTHER):
        assert_is_for(await browser.ask(stream, origin), origin)
        assert_is_for(await browser.ask(stream, origin, method="HEAD"), origin)
        asked = await browser.preflight(stream, origin, method="DELETE")
        assert asked.head.status == 204
        assert asked.head.value("Access-Control-Allow-Methods") == "GET, HEAD, DELETE, OPTIONS"
        assert_is_for(asked, origin)
    assert_is_for_no_page(await browser.ask(stream, STRANGER))
    assert_is_for_no_page(await browser.preflight(stream, STRANGER))
    assert_is_for(await browser.ask(stream, OTHER, method="DELETE"), OTHER)


@in_module_loop
@pytest.mark.parametrize(("target", "origin"), [("/kept", OTHER), ("/upstreams-kept", "https://upstream.example")])
async def test_refusals_about_a_kept_stream_are_for_the_pages_that_may_read_it(
    browser: Browser, stage: Stage, target: str, origin: str
) -> None:
    opened = await kept(browser, stage, target, headers=[("Authorization", "a"), ("Idempotency-Key", f"key of {target}")])
    stream = opened.head.value("Location") or ""
    same = [("Authorization", "a"), ("Idempotency-Key", f"key of {target}")]
    refused = [
        (403, await browser.ask(stream, origin)),
        (400, await browser.ask(stream, origin, headers=[("Authorization", "a"), ("Last-Event-ID", "nonsense")])),
        (422, await browser.ask(target, origin, method="POST", body=b"{2}", headers=same)),
        (400, await browser.ask(target, origin, method="POST", body=b"{}", headers=[*same, ("Last-Event-ID", "nonsense")])),
    ]
    for status, answer in refused:
        assert answer.head.status == status
        assert answer.head.value("Access-Control-Allow-Origin") == origin
        assert answer.head.value("Access-Control-Allow-Credentials") == "true"


@in_module_loop
async def test_page_learns_that_there_is_no_stream(browser: Browser, stage: Stage) -> None:
    gone = (await kept(browser, stage, "/brief")).head.value("Location") or ""
    async with asyncio.timeout(10):
        while (await browser.ask(gone, method="HEAD")).head.status != 410:
            await asyncio.sleep(0.05)
    for stream, status in ((gone, 410), (f"/streams/{'0' * 32}", 404)):
        answer = await browser.ask(stream)
        assert answer.head.status == status
        assert_is_for(answer, APP)
        assert (await browser.preflight(stream, method="DELETE")).head.status == 204
        stranger = await browser.ask(stream, STRANGER)
        assert (stranger.head.status, stranger.head.value("Access-Control-Allow-Origin")) == (status, "*")
        assert stranger.head.value("Access-Control-Allow-Credentials") is None


def test_readme_shows_the_table() -> None:
    section = DOCUMENTATION.partition("## CORS: pages of other origins\n")[2].partition("\n## ")[0]
    assert [key for key in Cors.model_fields if f"| `{key}` |" not in section] == []
    assert [name for name in Cors.model_fields["headers"].default if f"`{name}`" not in section] == []
