"""The processing of every request, however it is answered: its id, its span, and its metrics."""

from collections.abc import Awaitable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.request_ids import current_request_id, keep_or_make
from service.tracing import TRACE_FIELDS, Span, Tracing, current_span

from .meters import Meters

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_STATUS_PATHS = frozenset(("/livez", "/readyz", "/metrics"))  # probed all day long


class Requests:
    """ASGI middleware, the outermost: keep or create an `X-Request-Id` for the answer and the log lines, and count the answer.

    With `tracing` each request is a span from its head to the end of its answer. It costs a stream only a plain call per event.
    """

    def __init__(self, app: ASGIApp, meters: Meters, tracing: Tracing | None) -> None:
        self._app = app
        self._meters = meters
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = keep_or_make(_find(scope, b"x-request-id"))
        current_request_id.set(request_id)
        span = None if self._tracing is None or scope["path"] in _STATUS_PATHS else _open_span(self._tracing, scope, request_id)
        current_span.set(span)
        status = 0

        def send_named(message: Message) -> Awaitable[None]:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            return send(message)

        try:
            await self._app(scope, receive, send_named)
        except Exception:
            status = status or 500  # an outer handler answers with 500
            raise
        finally:
            self._meters.requests.labels(_known(scope["method"]), status or "none").inc()
            if span is not None:
                _end_span(span, scope, status)


def _known(method: str) -> str:
    """Return the method, or "other" for an unknown one: clients may invent any number of them."""
    return method if method in _METHODS else "other"


def _find(scope: Scope, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


def _open_span(tracing: Tracing, scope: Scope, request_id: str) -> Span:
    fields = {name: found for name in TRACE_FIELDS if (found := _find(scope, name.encode()))}
    attributes = {
        "http.request.method": _known(scope["method"]),
        "url.path": scope["path"],
        "url.scheme": scope["scheme"],
        "eventstream.request_id": request_id,
    }
    return tracing.serve(_known(scope["method"]), fields, attributes)


def _end_span(span: Span, scope: Scope, status: int) -> None:
    attributes: dict[str, str | int | float | bool] = {}
    route = scope.get("http.route") or getattr(scope.get("route"), "path", None)
    if route is not None:
        attributes["http.route"] = route
        span.rename(f"{_known(scope['method'])} {route}")
    if status:
        attributes["http.response.status_code"] = status
    span.end(attributes, f"answered {status}" if status >= 500 else "")
