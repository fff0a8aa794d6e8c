import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from producer.settings import Settings
from tests.kit.producer import Producer, app_without_log, serve

SETTINGS = Settings(interval_ms=0, max_message_chars=10)
AS_JSON = {"Content-Type": "application/json"}


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def producer() -> AsyncIterator[Producer]:
    async with serve(SETTINGS) as serving:
        yield serving


def problem_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert problem["type"] == "about:blank"
    assert problem["title"]
    assert problem["detail"]
    return problem


async def refused(producer: Producer, body: bytes, headers: dict[str, str]) -> list[dict[str, Any]]:
    """Return the entries of `errors`, which both routes must agree on."""
    found = [problem_of(await producer.http.post(path, content=body, headers=headers), 422)["errors"] for path in ("/sse", "/plain")]
    assert found[0] == found[1]
    errors: list[dict[str, Any]] = found[0]
    return errors


@pytest.mark.parametrize(
    ("body", "field", "detail"),
    [
        (b"{}", "message", "Field required"),
        (b'{"message": ""}', "message", "String should have at least 1 character"),
        (b'{"message": null}', "message", "Input should be a valid string"),
        (b'{"message": 7}', "message", "Input should be a valid string"),
        (b'{"message": NaN}', "message", "Input should be a valid string"),
        (b'{"message": "\\ud800"}', "message", "Input should be a valid string, unable to parse raw data as a unicode string"),
        (b'{"message": ', "body", "is not JSON at character 12: Expecting value"),
        (b'{"message": "\xff"}', "body", "cannot be read as JSON: 'utf-8' codec can't decode byte 0xff in position 13: invalid start byte"),
        (b"", "message", "Field required"),
        (b"[1]", "message", "Field required"),
    ],
)
async def test_invalid_body_is_422_that_names_the_field(producer: Producer, body: bytes, field: str, detail: str) -> None:
    (error,) = await refused(producer, body, AS_JSON)
    assert (error["in"], error["field"], error["detail"]) == ("body", field, detail)


async def test_body_nested_too_deeply_is_422(producer: Producer) -> None:
    (error,) = await refused(producer, b"[" * 1100, AS_JSON)
    assert (error["in"], error["field"]) == ("body", "body")


async def test_message_over_the_limit_is_refused_with_its_length_and_the_limit(producer: Producer) -> None:
    (error,) = await refused(producer, json.dumps({"message": "12345678901"}).encode(), AS_JSON)
    at_the_limit = await producer.http.post("/sse", json={"message": "1234567890"})
    assert error == {"in": "body", "field": "message", "detail": "String should have at most 10 characters", "got": 11, "allowed": 10}
    assert at_the_limit.status_code == 200


async def test_longest_message_passes_however_json_spells_it(producer: Producer) -> None:
    answer = await producer.http.post("/plain", content=json.dumps({"message": "😀" * 10}, ensure_ascii=True), headers=AS_JSON)
    assert answer.content.count("😀".encode()) == 10


async def test_body_that_is_not_announced_as_json_is_refused_with_what_to_do(producer: Producer) -> None:
    (error,) = await refused(producer, b'{"message": "x"}', {"Content-Type": "text/plain"})
    assert error["detail"] == "must be in a JSON object, sent with Content-Type: application/json"
    assert error["got"] == "Content-Type: text/plain"


@pytest.mark.parametrize("path", ["/sse", "/plain"])
async def test_body_over_the_limit_is_413_with_got_and_allowed_whether_announced_or_not(producer: Producer, path: str) -> None:
    async def in_chunks() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b" " * 1000

    announced = problem_of(await producer.http.post(path, content=b" " * 3000, headers=AS_JSON), 413)
    chunked = problem_of(await producer.http.post(path, content=in_chunks(), headers=AS_JSON), 413)
    assert announced["got"] == 3000
    assert announced["allowed"] == chunked["allowed"] == 1024 + 12 * 10
    assert chunked["got"] > chunked["allowed"]


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ({"interval_ms": "60001"}, "Input should be less than or equal to 60000"),
        ({"interval_ms": "-1"}, "Input should be greater than or equal to 0"),
        ({"interval_ms": "soon"}, "Input should be a valid integer, unable to parse string as an integer"),
        ({"repeat": "10001"}, "Input should be less than or equal to 10000"),
        ({"repeat": "0"}, "Input should be greater than or equal to 1"),
        ({"split": "syllable"}, "Input should be 'grapheme', 'word' or 'line'"),
        ({"ids": "perhaps"}, "Input should be a valid boolean, unable to interpret input"),
    ],
)
async def test_parameter_out_of_its_limits_is_422_that_names_it(producer: Producer, query: dict[str, str], detail: str) -> None:
    ((name, value),) = query.items()
    for path in ("/", "/plain"):
        problem = problem_of(await producer.http.get(path, params=query), 422)
        assert problem["errors"] == [{"in": "query", "field": name, "detail": detail, "got": value}]
        assert problem["detail"] == f"{name}: {detail}"


async def test_all_errors_are_reported_at_once_and_long_values_are_shortened(producer: Producer) -> None:
    answer = await producer.http.post("/sse", json={"message": 5}, params={"repeat": "9" * 4000, "split": "x"})
    assert [error["field"] for error in problem_of(answer, 422)["errors"]] == ["repeat", "split", "message"]
    assert len(answer.content) < 1500


async def test_unknown_path_is_404_and_wrong_method_405_with_what_is_allowed(producer: Producer) -> None:
    assert "/nothing" in problem_of(await producer.http.get("/nothing"), 404)["detail"]
    wrong = await producer.http.get("/sse")
    assert problem_of(wrong, 405)["detail"] == "/sse does not support GET; allowed: POST"
    assert wrong.headers["Allow"] == "POST"


async def test_internal_error_is_a_500_without_internals() -> None:
    app = app_without_log(SETTINGS)

    @app.get("/failing")
    async def fail() -> None:
        raise RuntimeError("secret")

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://producer") as http:
        answer = await http.get("/failing")
    assert "secret" not in problem_of(answer, 500)["detail"]
