"""ASGI middlewares for every request: a valid `Host`, a limited body, an ID, a span, and metrics."""

from collections.abc import Awaitable
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.hosts import is_host
from service.request_ids import current_request_id, keep_or_make
from service.tracing import TRACE_FIELDS, Span, Tracing, current_span

from .meters import Meters
from .problems import Problem, answer_problem

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_STATUS_PATHS = frozenset(("/livez", "/readyz", "/metrics"))  # probed all day long


class BodyLimit:
    """ASGI middleware: a POST route whose body has more than `max_bytes`, announced or read, gets a 413 `Problem` raised in it.

    Place it outside of the handler that turns a Problem into an answer. Bodies of other methods are dropped unread. Routes
    below the path `not_below` have limits of their own.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, not_below: str) -> None:
        self._app = app
        self._not_below = not_below + "/"
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"].startswith(self._not_below):
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        received = 0

        async def receive_within_limit() -> Message:
            nonlocal received
            if int(announced) > self._max_bytes:  # the server has parsed it already: digits only
                raise self._too_large(int(announced))
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > self._max_bytes:
                    raise self._too_large(received)
            return message

        await self._app(scope, receive_within_limit, send)

    def _too_large(self, size: int) -> Problem:
        return Problem(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"the body has {size} bytes or more, allowed are {self._max_bytes}",
            headers={"Connection": "close"},  # the rest of the body will not be read
            got=size,
            allowed=self._max_bytes,
        )


class HostCheck:
    """ASGI middleware that answers 400 unless a request has one valid `Host`, as RFC 9112 section 3.2 requires. HTTP/1.0 needs none.

    A proxy in front may take the first of two for the one that counts, and the producer's own links the last.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            hosts = [value for name, value in scope["headers"] if name == b"host"]
            is_one = len(hosts) == 1 and is_host(hosts[0].decode("latin-1"))
            if not is_one and (hosts or scope["http_version"] != "1.0"):
                await _refuse(len(hosts))(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _refuse(count: int) -> ASGIApp:
    got = "one that is neither a name nor an address" if count == 1 else f"{count} of them"
    detail = f"a request needs one field Host, a name or an address, with or without a port (RFC 9112 section 3.2); got {got}"
    return answer_problem(Problem(HTTPStatus.BAD_REQUEST, detail, headers={"Connection": "close"}))


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
