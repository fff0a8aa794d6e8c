"""The time between a request and its upstream's answer."""

import asyncio

from service.tracing import Span

from ..upstream_client import UpstreamAnswer
from .kept_stream import KeptStream
from .store import UNFINISHED, StreamHead


class Opening:
    """A stream whose upstream has been asked and may not have answered yet."""

    def __init__(self, head: StreamHead) -> None:
        self.head = head
        self.answer: asyncio.Future[KeptStream | UpstreamAnswer] = asyncio.get_running_loop().create_future()
        """The stream, or the response when it is no event stream: that belongs to the request that opened it. Raises what asking raised."""
        self.cookies: list[str] = []
        """What the upstream set, for the request that opened it and for nobody else."""
        self.task: asyncio.Task[None] | None = None
        self.left = False
        """Whether the request that opened it has gone."""
        self.request_id = ""
        """Of the request that opened it."""
        self.span: Span | None = None
        """What is told of the request to the upstream; the stream ends it, if there is one."""

    @property
    def stream(self) -> KeptStream | None:
        """The stream, if it is here already."""
        if not self.answer.done() or self.answer.cancelled() or self.answer.exception() is not None:
            return None
        answer = self.answer.result()
        return answer if isinstance(answer, KeptStream) else None

    @property
    def is_unfinished(self) -> bool:
        """Whether the stream is here and has ended so that its request may be made again."""
        return (stream := self.stream) is not None and stream.state in UNFINISHED

    def leave(self) -> None:
        """Takes note that the request that opened it has gone. Without an Idempotency-Key nobody can come for what was not answered yet."""
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
    """Closes a response that nobody takes."""
    if not answer.cancelled() and answer.exception() is None and not isinstance(response := answer.result(), KeptStream):
        response.close()
