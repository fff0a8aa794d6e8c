from typing import Any

import pytest

from producer.settings import Settings
from tests.kit.producer import app_without_log

STREAMS = [("/", "get"), ("/sse", "post"), ("/plain", "get"), ("/plain", "post")]


@pytest.fixture(scope="module")
def openapi() -> dict[str, Any]:
    return app_without_log(Settings(max_message_chars=70)).openapi()


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
    assert (interval["minimum"], interval["maximum"], interval["default"]) == (0, 60_000, 100)
    assert (repeat["minimum"], repeat["maximum"], repeat["default"]) == (1, 10_000, 1)


def test_message_is_described_with_its_limits(openapi: dict[str, Any]) -> None:
    bodies = {name: schema for name, schema in openapi["components"]["schemas"].items() if name.startswith("Body")}
    assert len(bodies) == 2
    for schema in bodies.values():
        message = schema["properties"]["message"]
        assert (message["minLength"], message["maxLength"]) == (1, 70)
        assert schema["required"] == ["message"]


def test_every_path_is_described(openapi: dict[str, Any]) -> None:
    topics = {"/topics", "/topics/{topic}", "/topics/{topic}/events", "/topics/{topic}/events/{event_id}", "/events"}
    assert set(openapi["paths"]) == {"/", "/sse", "/plain", "/livez", "/readyz", "/metrics"} | topics


def test_publishing_is_described_with_its_bodies_headers_and_answers(openapi: dict[str, Any]) -> None:
    publish = openapi["paths"]["/topics/{topic}/events"]["post"]
    assert set(publish["requestBody"]["content"]) == {"application/json", "text/plain", "application/x-ndjson"}
    assert [parameter["name"] for parameter in publish["parameters"]] == ["topic", "Idempotency-Key", "Authorization"]
    assert set(publish["responses"]) == {"200", "201", "401", "403", "404", "413", "415", "422", "503", "507"}
    assert publish["responses"]["201"]["headers"]["Location"]


@pytest.mark.parametrize("path", ["/topics/{topic}/events", "/events"])
def test_subscribing_is_described_with_its_parameters_and_an_example(openapi: dict[str, Any], path: str) -> None:
    subscribe = openapi["paths"][path]["get"]
    parameters = {parameter["name"]: parameter for parameter in subscribe["parameters"]}
    assert set(parameters) == {"topic", "last_event_id", "Last-Event-ID", "from", "since", "limit", "follow", "gap"}
    assert all(parameter["description"] for parameter in parameters.values())
    example = subscribe["responses"]["200"]["content"]["text/event-stream"]["example"]
    assert example.startswith("retry: 3000\nid: ")


def test_every_answer_about_topics_is_described(openapi: dict[str, Any]) -> None:
    for path, methods in openapi["paths"].items():
        for operation in methods.values() if "topic" in path or path == "/events" else ():
            assert operation["summary"]
            assert all(answer["description"] for answer in operation["responses"].values())
            problems = {status: answer for status, answer in operation["responses"].items() if status >= "400"}
            assert all(list(answer["content"]) == ["application/problem+json"] for answer in problems.values())
