"""Limit request bodies, so that none fills the memory."""

from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .problems import Problem


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
