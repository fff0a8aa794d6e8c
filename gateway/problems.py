"""Errors to people: `application/problem+json` (RFC 9457)."""

import json
from http import HTTPStatus

from aiohttp import web

RETRY_AFTER_SECONDS = 5
"""What `Retry-After` says where coming back later helps; a little above EventSource's usual three seconds."""

_RETRYABLE = frozenset((429, 502, 503, 504))


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> web.Response:
    """Gives the answer for an error; 429, 502, 503 and 504 say when to come back."""
    fields = dict(headers or {})
    fields["Cache-Control"] = "no-store"
    fields["Server"] = "gateway"
    if status in _RETRYABLE:
        fields["Retry-After"] = str(RETRY_AFTER_SECONDS)
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    fields["Content-Type"] = "application/problem+json"
    return web.Response(status=status, body=json.dumps(body).encode(), headers=fields)
