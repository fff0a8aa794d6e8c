"""The time between a request and its upstream's answer."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

from service.tracing import Span

from ...access.budget import Budget
from ...http.asking import UpstreamAnswer
from .kept_stream import KeptStream
from .store import ORPHANED, RUNNING, STOPPED, UNFINISHED, StreamHead


class Opening:
    """A stream whose upstream may not have answered yet. It counts for its owner in `streams` until it has ended."""

    task: asyncio.Task[None]
    """The upstream request."""

    def __init__(self, head: StreamHead, streams: Budget, owner: str, private: Callable[[str], str] = str) -> None:
        self.head = head
        self.private = private
        """Makes a name that the answer brings one of the client's that opened it."""
        self.holding = streams.open(owner, reclaim=self._reclaim)
        """Its place in the budget; closed when the stream has ended."""
        self.answer: asyncio.Future[KeptStream | UpstreamAnswer] = asyncio.get_running_loop().create_future()
        """The stream, or another response, which belongs to the request that opened it. Raises the exception of the upstream request."""
        self.cookies: list[str] = []
        """Cookies from the upstream, only for the request that opened it."""
        self.keeps = True
        """Whether the answer is kept if it is an event stream."""
        self.retries = False
        """Whether the client repeats the request if it gets no answer."""
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

    @property
    def is_running(self) -> bool:
        """Whether its upstream has not answered yet, or its stream runs."""
        return not self.answer.done() or ((stream := self.stream) is not None and stream.state == RUNNING)

    def rename(self, name: str) -> None:
        """Set the name, which the answer has brought."""
        self.head = replace(self.head, name=name)
        if self.stream is not None:
            self.stream.rename(name)

    def stop(self, reason: str) -> None:
        """Stop the stream, or the upstream request if that has no answer yet. The clients that wait for it get an error."""
        if self.stream is not None:
            self.stream.stop(STOPPED, reason)
        elif not self.answer.done():
            self.answer.set_exception(ValueError(reason))
            self.answer.exception()  # mark it as retrieved: no request may be left to await it
            self.task.cancel()

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
            self.task.cancel()
        elif stream.state == RUNNING:
            if stream.viewers or stream.awaited:
                return False
            stream.stop(ORPHANED, "no client followed it when a limit of streams was reached")
        self.holding.close()
        return True

    def leave(self) -> None:
        """Record that the client that opened it has disconnected.

        Without an Idempotency-Key, a name, or a client that repeats its request, no client can resume before the answer.
        """
        self.left = True
        if self.stream is not None:
            self.stream.viewer_left()
        elif not self.answer.done():
            if not (self.head.key or self.head.name or self.retries):
                self.task.cancel()
            self.answer.add_done_callback(_close_response)
        else:
            _close_response(self.answer)


def _close_response(answer: asyncio.Future[KeptStream | UpstreamAnswer]) -> None:
    """Close a response without a client."""
    if not answer.cancelled() and answer.exception() is None and not isinstance(response := answer.result(), KeptStream):
        response.close()
