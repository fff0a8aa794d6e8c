"""An upstream that plays a script for each request, and an event source that follows it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from eventstream import Reconnection
from eventstream.client import EventSource
from tests.kit.upstream import EVENT_STREAM_HEAD, Asked, Script, ScriptedUpstream, chunk

NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"


def at_once() -> Reconnection:
    """Return the policy that never waits."""
    return Reconnection(initial_seconds=0, maximum_seconds=0)


def patient() -> Reconnection:
    """Return the policy that waits for longer than any test, so that a client that reconnects was made to."""
    return Reconnection(initial_seconds=3600)


def stream(*bodies: bytes) -> bytes:
    """Return the head of an event stream, and each body in one HTTP chunk."""
    return EVENT_STREAM_HEAD + b"".join(chunk(body) for body in bodies)


def answer(status: int, *headers: str) -> bytes:
    """Return an answer without a body."""
    lines = [f"HTTP/1.1 {status} Reason", "Content-Length: 0", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@asynccontextmanager
async def following(*scripts: Script | Callable[[Asked], Script], **options: Any) -> AsyncIterator[tuple[ScriptedUpstream, EventSource]]:
    """Start an upstream with one of `scripts` a request, and an event source that follows it, without delays unless `options` set them."""
    options.setdefault("reconnection", at_once())
    async with ScriptedUpstream(*scripts) as upstream, EventSource(upstream.url, **options) as source:
        yield upstream, source


def asked_ids(upstream: ScriptedUpstream) -> list[str | None]:
    """Return the `Last-Event-ID` of each request, as UTF-8."""
    sent = [asked.header("Last-Event-ID") for asked in upstream.requests]
    return [value if value is None else value.encode("latin-1").decode() for value in sent]
