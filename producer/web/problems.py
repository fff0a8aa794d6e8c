"""Errors for clients: `application/problem+json` (RFC 9457) with what was got, what is allowed, and where."""

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

from service.request_ids import REQUEST_ID, current_request_id

PROBLEM_JSON = "application/problem+json"

_MEMBERS = ["type", "title", "status", "detail", "request_id"]
_LONGEST_ECHO = 100  # characters of a wrong value that are repeated to the client: enough to recognize it


class Problem(HTTPException):
    """Raised by a route to refuse a request; `facts` become members of the problem document beside type, title, status and detail."""

    def __init__(self, status: int, detail: str, *, headers: Mapping[str, str] | None = None, **facts: object) -> None:
        super().__init__(status, detail, dict(headers) if headers else None)
        self.facts: Mapping[str, object] = facts


def answer_with_problems(app: FastAPI, routers: Sequence[APIRouter]) -> None:
    """Make `app`, which has the routes of `routers`, answer every error with a problem document."""
    app.state.routers = routers
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid_request)
    app.add_exception_handler(Exception, _answer_failure)


def describe_problems(descriptions: Mapping[int, str]) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI text of problem answers, by status."""
    members = {name: {"type": "integer" if name == "status" else "string"} for name in _MEMBERS}
    schema = {"type": "object", "required": _MEMBERS, "properties": members}
    described: dict[int | str, dict[str, Any]] = {}
    for status, text in descriptions.items():
        example = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
        described[status] = {"description": text, "content": {PROBLEM_JSON: {"schema": schema, "example": example}}}
    return described


def refuse_field(place: str, field: str, detail: str, **facts: object) -> Problem:
    """Return the answer to one invalid field, 422. `place` is `path`, `query` or `header`."""
    errors = [{"in": place, "field": field, "detail": detail, **facts}]
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"{field}: {detail}", errors=errors)


def nothing_at(path: object) -> str:
    """Return the detail of a 404."""
    return f"there is nothing at {path}; /docs lists all paths"


def answer_problem(problem: Problem) -> JSONResponse:
    """Return the answer that refuses a request."""
    return _document(problem.status_code, problem.detail, problem.facts, problem.headers)


def _document(
    status: int, detail: str, facts: Mapping[str, object] | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    content = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail, **(facts or {})}
    if request_id := current_request_id.get():
        content["request_id"] = request_id
    return JSONResponse(content, status, headers, PROBLEM_JSON)


async def _answer_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if isinstance(error, Problem):
        return answer_problem(error)
    path = describe_value(request.scope["path"])  # not request.url, which trusts the Host header
    if isinstance(error.__cause__, ValueError | RecursionError):  # FastAPI's 400 for a body that fails in the JSON parser
        entry = {"in": "body", "field": "body", "detail": f"cannot be read as JSON: {error.__cause__}"}
        return _document(HTTPStatus.UNPROCESSABLE_ENTITY, f"body: {entry['detail']}", {"errors": [entry]})
    if error.status_code == HTTPStatus.NOT_FOUND:
        detail = nothing_at(path)
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = _find_methods(request)
        detail = f"{path} does not support {request.method}; allowed: {allowed}"
        return _document(error.status_code, detail, headers={"Allow": allowed})
    else:
        detail = error.detail
    return _document(error.status_code, detail, headers=error.headers)


def _find_methods(request: Request) -> str:
    """Return the methods of all routes at the request's path, because Starlette names only those of the first."""
    found: dict[str, None] = {}
    for router in request.app.state.routers:
        for route in router.routes:
            if route.matches(request.scope)[0] is not Match.NONE:
                found |= dict.fromkeys(sorted(route.methods))
    return ", ".join(found)


async def _answer_invalid_request(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    errors = [_describe(problem) for problem in error.errors()]
    if isinstance(error.body, bytes):  # FastAPI parses a body as JSON only if its content type says so
        sent_as = request.headers.get("content-type")
        for found in errors:
            if found["in"] == "body":
                found |= {"detail": "must be in a JSON object, sent with Content-Type: application/json", "got": f"Content-Type: {sent_as}"}
    detail = "; ".join(f"{found['field']}: {found['detail']}" for found in errors)
    return _document(HTTPStatus.UNPROCESSABLE_ENTITY, detail, {"errors": errors})


async def _answer_failure(_request: Request, _error: Exception) -> JSONResponse:
    headers = {REQUEST_ID: current_request_id.get()}  # this runs outside of all middleware
    return _document(HTTPStatus.INTERNAL_SERVER_ERROR, "the producer failed on this request; its log says why", headers=headers)


def _describe(problem: Mapping[str, Any]) -> dict[str, object]:
    """Return one entry of `errors`: where it is, what is wrong, what was got; the allowed values are in the detail."""
    location: Sequence[str | int] = problem["loc"]
    if problem["type"] == "json_invalid":
        return {"in": "body", "field": "body", "detail": f"is not JSON at character {location[-1]}: {problem['ctx']['error']}"}
    field = ".".join(str(part) for part in location[1:]) or str(location[0])
    described: dict[str, object] = {"in": location[0], "field": field, "detail": problem["msg"]}
    if problem["type"] == "model_attributes_type":
        described["detail"] = "must be a JSON object"
    elif problem["type"] == "string_too_long":
        described |= {"got": len(problem["input"]), "allowed": problem["ctx"]["max_length"]}
    elif problem["type"] != "missing":
        described["got"] = describe_value(problem["input"])
    return described


def describe_value(value: object) -> object:
    """Return a value that can be repeated to the client: itself, or its start when it is long, but never a whole document."""
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, bytes | dict | list):
        return type(value).__name__
    text = str(value).encode(errors="replace").decode()
    return text if len(text) <= _LONGEST_ECHO else f"{text[:_LONGEST_ECHO]}… ({len(text)} characters)"
