"""Refuse requests without a valid `Host`."""

from http import HTTPStatus

from starlette.types import ASGIApp, Receive, Scope, Send

from service.hosts import is_host

from .problems import Problem, answer_problem


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
