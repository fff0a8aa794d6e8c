"""The time between a request and its upstream's answer, and the request to the upstream of a stream that may be kept."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import aiohttp
import structlog
from multidict import CIMultiDict

from service.tracing import Span

from ...access.budget import Budget
from ...access.exchange import Exchange
from ...http.asking import UpstreamAnswer, UpstreamClient
from ...http.deadline import Deadline
from ..body import RequestBody
from .kept_stream import KeptStream
from .store import ORPHANED, RUNNING, UNFINISHED, StreamHead


class Opening:
    """A stream whose upstream may not have answered yet. It counts for its owner in `streams` until it has ended."""

    def __init__(self, head: StreamHead, streams: Budget, owner: str) -> None:
        self.head = head
        self.holding = streams.open(owner, reclaim=self._reclaim)
        """Its place in the budget; closed when the stream has ended."""
        self.answer: asyncio.Future[KeptStream | UpstreamAnswer] = asyncio.get_running_loop().create_future()
        """The stream, or another response, which belongs to the request that opened it. Raises the exception of the upstream request."""
        self.cookies: list[str] = []
        """Cookies from the upstream, only for the request that opened it."""
        self.task: asyncio.Task[None] | None = None
        self.keeps = True
        """Whether the answer is kept if it is an event stream."""
        self.left = False
        """Whether the client of the request that opened it has disconnected."""
        self._waiting = 0
        self.request_id = ""
        """ID of the request that opened it."""
        self.span: Span | None = None
        """Span of the request to the upstream. The stream ends it, if there is one."""

    @property
    def stream(self) -> KeptStream | None:
        """The stream, or None if the upstream has not answered with one."""
        if not self.answer.done() or self.answer.cancelled() or self.answer.exception() is not None:
            return None
        answer = self.answer.result()
        return answer if isinstance(answer, KeptStream) else None

    @property
    def is_unfinished(self) -> bool:
        """Whether the stream has ended in a way that allows its request to be repeated."""
        return (stream := self.stream) is not None and stream.state in UNFINISHED

    def set_body_digest(self, digest: bytes) -> None:
        """Set the digest of the request's body. The upstream may have answered before the whole body arrived."""
        self.head = replace(self.head, body=digest)
        if self.stream is not None:
            self.stream.head = replace(self.stream.head, body=digest)

    def when_done(self, act: Callable[[], None]) -> None:
        """Call `act` when the stream has ended, or when no client is left for another answer."""

        def note_end(_: object) -> None:
            if self.stream is not None or self.left:
                act()

        assert self.task is not None
        self.task.add_done_callback(note_end)

    async def wait(self) -> KeptStream | UpstreamAnswer:
        """Wait for the answer. Cancelling the wait does not cancel the request."""
        self._waiting += 1
        try:
            return await asyncio.shield(self.answer)
        finally:
            self._waiting -= 1

    def _reclaim(self) -> bool:
        """End it if no client subscribes to it or waits for it. Return whether it has ended."""
        stream = self.stream
        if self._waiting or (stream is None and not self.left):
            return False
        if stream is None:
            assert self.task is not None
            self.task.cancel()
        elif stream.state == RUNNING:
            if stream.viewers or stream.awaited:
                return False
            stream.stop(ORPHANED, "no client followed it when a limit of streams was reached")
        self.holding.close()
        return True

    def leave(self) -> None:
        """Record that the client that opened it has disconnected. Without an Idempotency-Key, no client can resume before the answer."""
        self.left = True
        if self.stream is not None:
            self.stream.viewer_left()
        elif not self.answer.done():
            if self.task is not None and not self.head.key:
                self.task.cancel()
            self.answer.add_done_callback(_close_response)
        else:
            _close_response(self.answer)


def _close_response(answer: asyncio.Future[KeptStream | UpstreamAnswer]) -> None:
    """Close a response without a client."""
    if not answer.cancelled() and answer.exception() is None and not isinstance(response := answer.result(), KeptStream):
        response.close()


log = structlog.get_logger()


async def ask_for_stream(
    client: UpstreamClient,
    exchange: Exchange,
    body: RequestBody,
    fields: CIMultiDict[str],
    timeout: aiohttp.ClientTimeout,
    opening: Opening,
) -> UpstreamAnswer:
    """Return the answer when its head has arrived. `opening` gets the digest of the body as soon as it is known."""
    route = exchange.route
    with Deadline() as first_byte:

        def wait_for_answer() -> None:
            opening.set_body_digest(body.digest)
            if route.first_byte_timeout_seconds:
                first_byte.set(asyncio.get_running_loop(), route.first_byte_timeout_seconds)

        try:
            data = body.open(wait_for_answer, first_byte.fire)
            answer = await client.ask(
                exchange.method, route.upstream, exchange.target, fields=fields, data=data, timeout=timeout, tls=route.tls
            )
        except BaseException:
            body.end()
            raise
    body.answered()
    if body.received_bytes > route.max_kept_body_bytes:
        opening.keeps = False
        note_unkept(exchange)
    return answer


def note_unkept(exchange: Exchange) -> None:
    """Log that the answer is not kept, because the body of its request is too large."""
    route = exchange.route
    facts = {"route": route.path, "path": exchange.shown_path, "request_id": exchange.request_id, "limit": route.max_kept_body_bytes}
    log.info("answer is not kept: the body of its request is too large", **facts)
