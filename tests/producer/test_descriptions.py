from typing import Any

import pytest

from producer.app import create_app
from producer.settings import Settings

STREAMS = [("/", "get"), ("/sse", "post"), ("/plain", "get"), ("/plain", "post")]


@pytest.fixture(scope="module")
def openapi() -> dict[str, Any]:
    return create_app(Settings(max_repeat=7, max_interval_ms=900, max_message_chars=70)).openapi()


@pytest.mark.parametrize(("path", "method"), STREAMS)
def test_stream_is_described_as_an_event_stream_with_an_example(openapi: dict[str, Any], path: str, method: str) -> None:
    answers = openapi["paths"][path][method]["responses"]
    assert list(answers["200"]["content"]) == ["text/event-stream"]
    example = answers["200"]["content"]["text/event-stream"]["example"]
    assert example.startswith("event: message\nretry: 15000\ndata: 七\n\n")
    problems = {"400", "422", "503"} | ({"413"} if method == "post" else set())
    assert set(answers) == {"200", "204"} | problems
    assert all(list(answers[status]["content"]) == ["application/problem+json"] for status in problems)


@pytest.mark.parametrize(("path", "method"), STREAMS)
def test_every_parameter_is_described_with_its_limits(openapi: dict[str, Any], path: str, method: str) -> None:
    parameters = {parameter["name"]: parameter for parameter in openapi["paths"][path][method]["parameters"]}
    assert set(parameters) == {"interval_ms", "repeat", "split", "ids", "last_event_id", "Last-Event-ID"}
    assert all(parameter["description"] for parameter in parameters.values())
    interval, repeat = parameters["interval_ms"]["schema"], parameters["repeat"]["schema"]
    assert (interval["minimum"], interval["maximum"], interval["default"]) == (0, 900, 100)
    assert (repeat["minimum"], repeat["maximum"], repeat["default"]) == (1, 7, 1)


def test_message_is_described_with_its_limits(openapi: dict[str, Any]) -> None:
    bodies = {name: schema for name, schema in openapi["components"]["schemas"].items() if name.startswith("Body")}
    assert len(bodies) == 2
    for schema in bodies.values():
        message = schema["properties"]["message"]
        assert (message["minLength"], message["maxLength"]) == (1, 70)
        assert schema["required"] == ["message"]


def test_there_is_nothing_but_what_is_described(openapi: dict[str, Any]) -> None:
    assert set(openapi["paths"]) == {"/", "/sse", "/plain", "/livez", "/readyz", "/metrics"}
