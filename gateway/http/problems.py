"""Build error answers: `application/problem+json` (RFC 9457)."""

import json
import random
from http import HTTPStatus

from aiohttp import hdrs, web

from eventstream import encode_retry

RETRY_AFTER_SECONDS = 1
"""Default `Retry-After`, if the right delay is unknown: the smallest value, because SDKs wait for all of it."""

_RETURN_AFTER_MS = 5_000
_RETURN_SPREAD_MS = 20_000  # spreads the reconnections of thousands of rejected clients
_RETRYABLE = frozenset((429, 502, 503, 504))
_ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
"""Error types of language model providers. Other 4xx are `invalid_request_error`, other 5xx `api_error`."""


class ProblemAnswer(web.Response):
    """An error answer."""

    def __init__(self, status: int, document: dict[str, object], headers: dict[str, str]) -> None:
        super().__init__(status=status, body=json.dumps(document).encode(), headers=headers)
        self._document = document

    def name_request(self, request_id: str) -> None:
        """Add the request's ID, so that a user can report it."""
        self.body = body = json.dumps(self._document | {"request_id": request_id}).encode()
        if hdrs.CONTENT_LENGTH in self.headers:
            self.headers[hdrs.CONTENT_LENGTH] = str(len(body))


def problem(status: int, detail: str, headers: dict[str, str] | None = None, code: str = "") -> web.Response:
    """Return an error answer. 429, 502, 503 and 504 get a `Retry-After` unless `headers` has one. The public port adds the request's ID.

    The extension member `error` is for SDKs of language models. Its `code` is `code`, by default derived from the status.
    """
    fields = dict(headers or {})
    fields["Cache-Control"] = "no-store"
    fields["Server"] = "gateway"
    if status in _RETRYABLE:
        fields.setdefault("Retry-After", str(RETRY_AFTER_SECONDS))
    fields["Content-Type"] = "application/problem+json"
    title = HTTPStatus(status).phrase
    error = {
        "message": detail,
        "type": _ERROR_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error"),
        "code": (code or title.lower()).replace("-", "_").replace(" ", "_"),
    }
    document: dict[str, object] = {"type": "about:blank", "title": title, "status": status, "detail": detail, "error": error}
    return ProblemAnswer(status, document, fields)


def retry_later() -> web.Response:
    """Return an event stream with only a `retry`: an EventSource gives up for good on any other answer."""
    milliseconds = random.randint(_RETURN_AFTER_MS, _RETURN_AFTER_MS + _RETURN_SPREAD_MS)
    headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "Server": "gateway"}
    return web.Response(body=encode_retry(milliseconds), headers=headers)
