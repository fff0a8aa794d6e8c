"""One subscriber's event stream: past and new events, and its end."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass

import structlog

from eventstream import HEARTBEAT, encode_retry

from ..log.event_log import EventLog, LogError
from ..web.drain import Drain, encode_last_retry
from ..web.meters import Meters, Reason, StreamCount
from ..web.responses import STALLED
from .cursor import Cursor, GapBlock, Start
from .feeds import Feed, Feeds
from .names import Patterns

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Selection:
    """The request of a subscriber."""

    patterns: Patterns
    start: Start
    upto: int | None = None
    """The offset of the last requested event, None: no end."""
    limit: int | None = None
    """The number of requested events."""
    tell_gaps: bool = True


@dataclass(frozen=True, slots=True)
class Subscriptions:
    """How event streams of topics are sent; one for all of an app."""

    log: EventLog
    feeds: Feeds
    meters: Meters
    drain: Drain
    heartbeat_seconds: float
    send_timeout_seconds: float
    retry_ms: int

    async def has_anything(self, selection: Selection) -> bool:
        """Return whether the stream would have an event now, or a gap that is reported. Raises LogError."""
        with self.feeds.subscribe(selection.patterns) as feed:
            cursor = self._cursor(feed, selection)
            found = await cursor.advance()
            if isinstance(found, GapBlock) and not selection.tell_gaps:
                found = await cursor.advance()
            return found is not None

    async def send(self, selection: Selection, route: str, state: Mapping[str, object]) -> AsyncGenerator[bytes, None]:
        """Yield whole event blocks, joined, and heartbeats between them; first a `retry` line, which becomes part of the first block.

        A heartbeat is never a block of its own: before the first block it would end the `retry` line's block, which httpx-sse takes for an
        event without data; after it the client has seen ids. When the drain begins, a jittered `retry` line is the last. Closing the
        generator means that the client left, or with STALLED in the request's `state` that the server disconnected it.
        """
        count = StreamCount(self.meters, route)
        reason: Reason | None = None
        try:
            retry = encode_retry(self.retry_ms)
            yield retry
            count.add(retry)
            with self.feeds.subscribe(selection.patterns) as feed:
                cursor = self._cursor(feed, selection)
                while not self.drain.begun:
                    found = await cursor.advance()
                    if found is None:
                        if cursor.ended:
                            reason = "completed"
                            return
                        if await feed.wait(self.heartbeat_seconds):
                            continue
                        body, events = HEARTBEAT, 0
                    elif isinstance(found, GapBlock):
                        self.meters.gaps.labels(found.reason).inc()
                        if not selection.tell_gaps:
                            continue
                        body, events = found.body, 0
                    else:
                        body, events = found.body, found.events
                    yield body
                    count.add(body, events=events)
            last_retry = encode_last_retry(self.retry_ms)
            yield last_retry
            count.add(last_retry)
            reason = "drained"
        except LogError as error:
            _log.error("subscriber lost the log", route=route, error=str(error))
            reason = "failed"  # the client reconnects by itself and resumes
        finally:
            count.close(reason or ("stalled" if state.get(STALLED) else "left"))

    def _cursor(self, feed: Feed, selection: Selection) -> Cursor:
        return Cursor(feed, self.log.epoch, selection.start, upto=selection.upto, limit=selection.limit)
