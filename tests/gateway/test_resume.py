"""The `[routes.resume]` table: where names come from, and which paths ask for them."""

import pytest

from gateway.policy.resume import PRESETS, Resume, hide_name
from gateway.policy.route_table import RouteError, routes_of
from gateway.policy.routes import Route


def route(at: str = "/api/chat", /, **resume: object) -> Route:
    [only] = routes_of([{"path": at, "upstream": "http://127.0.0.1:8000", "mode": "resumable", "resume": resume}]).routes
    return only


def matched(path: str, template: str, on: str = "/api/chat") -> str | None:
    templates = route(on, name="body:/id", path=template).templates
    assert templates is not None
    assert templates.path is not None
    return templates.path.match(path)


@pytest.mark.parametrize(
    ("template", "path", "name"),
    [
        ("/api/chat/{name}/stream", "/api/chat/abc/stream", "abc"),
        ("{name}/stream", "/api/chat/abc/stream", "abc"),
        ("{name}/stream", "/api/chat/a%2Fb/stream", "a/b"),
        ("{name}/stream", "/api/chat/a%252Fb/stream", "a%2Fb"),
        ("{name}/stream", "/api/chat/%F0%9F%98%80/stream", "😀"),
        ("{name}/stream", "/api/chat/a/b/stream", None),
        ("{name}/stream", "/api/chat//stream", None),
        ("{name}/stream", "/api/chat/abc/stream/", None),
        ("{name}/stream", "/api/chat/abc/Stream", None),
        ("{name}/stream", "/api/chat/abc", None),
        ("*/{name}", "/api/chat/x/abc", "abc"),
        ("*/{name}", "/api/chat//abc", None),
        ("**/runs/{name}/stream", "/api/chat/runs/r1/stream", "r1"),
        ("**/runs/{name}/stream", "/api/chat/threads/t/runs/r1/stream", "r1"),
        ("**/runs/{name}/stream", "/api/chat/runs/stream", None),
    ],
)
def test_path_of_a_named_answer_is_matched_segment_by_segment(template: str, path: str, name: str | None) -> None:
    assert matched(path, template) == name


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/api/chat/0123456789/stream", "/api/chat/01234567…/stream"),
        ("/api/chat/0123456789/stop", "/api/chat/01234567…/stop"),
        ("/api/chat/01234567/stream", "/api/chat/012…/stream"),
        ("/api/chat/abc/stream", "/api/chat/ab…/stream"),
        ("/api/chat/a/stream", "/api/chat/…/stream"),
        ("/api/chat/%61%62%63%64/stream", "/api/chat/abc…/stream"),
        ("/api/chat/a%2Fb%20cdefgh/stream", "/api/chat/a%2Fb%20cdef…/stream"),
        ("/api/chat/%ff%fe%fd%fc/stream", "/api/chat/%EF%BF%BD%EF%BF%BD%EF%BF%BD…/stream"),
        ("/api/chat//stream", "/api/chat//stream"),
        ("/api/chat/0123456789", "/api/chat/0123456789"),
    ],
)
def test_name_in_a_path_is_shortened_for_logs(path: str, shown: str) -> None:
    templates = route(preset="ai-sdk").templates
    assert hide_name(path, templates) == shown
    assert hide_name(shown, templates) == shown
    assert hide_name(path, None) == path


def test_template_below_the_root_route() -> None:
    assert matched("/abc/stream", "{name}/stream", on="/") == "abc"
    assert matched("/responses/abc", "**/responses/{name}", on="/") == "abc"


@pytest.mark.parametrize("preset", PRESETS)
def test_preset_sets_its_keys_and_a_given_key_wins(preset: str) -> None:
    resume = route(preset=preset).resume
    assert resume is not None
    assert {key: getattr(resume, key) for key in PRESETS[preset]} == PRESETS[preset]
    assert route(preset=preset, when_named_again="stop").resume == Resume.model_validate({"preset": preset, "when_named_again": "stop"})
    chat = {**PRESETS["ai-sdk"], "preset": "ai-sdk", "when_over": "no-content"}
    assert route(preset="ai-sdk", when_over="no-content").resume == Resume.model_validate(chat)


def test_session_of_the_model_context_protocol_identifies_the_client() -> None:
    assert "mcp-session-id" in route(preset="mcp").identifying_fields
    assert "mcp-session-id" not in route(preset="ai-sdk").identifying_fields


@pytest.mark.parametrize(
    ("resume", "said"),
    [
        ({"preset": "aisdk"}, "ai-sdk"),
        ({"name": "id"}, "body:, event:, header:, query:, response-header:"),
        ({"name": "body:id"}, "'id' is not a JSON pointer"),
        ({"name": "body:/a~2"}, "is not a JSON pointer"),
        ({"name": "header:a b"}, "'a b' is not a field name"),
        ({"name": "query:"}, "needs a name after query:"),
        ({"name": "body:/id", "path": "/api/chat/stream"}, "with one segment {name}"),
        ({"name": "body:/id", "path": "{name}/{name}"}, "with one segment {name}"),
        ({"name": "body:/id", "path": "x{name}/stream"}, "with one segment {name}"),
        ({"name": "body:/id", "path": "{name}/stream?x=1"}, "with one segment {name}"),
        ({"name": "body:/id", "path": "/other/{name}"}, "path must be below the route's path /api/chat, got /other/{name}"),
        ({"name": "body:/id", "path": "{name}/stream", "stop": "{name}/stop"}, "must be a method and a path"),
        ({"name": "body:/id", "path": "{name}/stream", "stop": "POST /stop/{name}"}, "stop must be below the route's path"),
        ({"path": "{name}/stream"}, "path needs name"),
        ({"name": "body:/id", "stop": "POST {name}/stop"}, "stop needs path"),
        ({"name": "body:/id", "path": "{name}", "position": "query:after"}, "position and event_position need each other"),
        ({"name": "body:/id", "path": "{name}", "position": "body:/after"}, "query:, header:"),
        ({"location": "{Content Location}"}, "in lower case"),
        ({"first_block": True, "ids": False}, "first_block needs ids"),
        ({"nme": "body:/id"}, "nme"),
    ],
)
def test_impossible_table_is_refused_with_the_reason(resume: dict[str, object], said: str) -> None:
    with pytest.raises(RouteError) as error:
        route(**resume)
    assert said in str(error.value)


def test_table_is_refused_outside_mode_resumable() -> None:
    with pytest.raises(RouteError, match="resume requires mode = 'resumable'"):
        routes_of([{"path": "/", "upstream": "http://127.0.0.1:8000", "resume": {"preset": "mcp"}}])


def test_location_is_made_of_the_fields_of_the_answer() -> None:
    resume = Resume(location="{content-location}/stream")
    assert resume.location_of({"content-location": "/threads/t/runs/r"}) == "/threads/t/runs/r/stream"
    assert resume.location_of({}) == ""
