"""A stream that outlives its client."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import structlog

from eventstream import Framer, Parser, split_blocks
from eventstream.decoding import find_decoder
from service.tracing import Span

from ...access.budget import Budget
from ...http.asking import UpstreamAnswer
from ...http.headers import content_encoding, is_delimited
from ...http.paths import attach
from ...policy.routes import Route
from ...streams.fan_out import FanOut
from ...streams.history import UNLIMITED
from ...streams.relay import COMPLETE as RELAY_COMPLETE
from ...streams.relay import CUT as RELAY_CUT
from ...streams.relay import Relay
from ...streams.sealed import SealedBlocks
from ...streams.stamping import read_id, read_stamp, stamp_plain
from ...streams.subscriber import BEHIND
from ...streams.wheel import TimerWheel
from .stamper import Stamper
from .store import COMPLETE, CUT, ORPHANED, RUNNING, STOPPED, TOO_LARGE, StoredStream, StreamHead

log = structlog.get_logger()

_Watcher = Callable[[bytes], bool]


class KeptStream:
    """An upstream's answer to one request, kept from its first block, for all its clients, now or later.

    It is the sink of the relay that reads the upstream. Blocks get their IDs here, go into the history, and are sent to subscribers in the
    same turn of the event loop.
    """

    def __init__(self, head: StreamHead, route: Route, wheel: TimerWheel, memory: Budget) -> None:
        self.head = head
        self.route = route
        self.state = RUNNING
        self.reason = ""
        """Details that the state alone does not give."""
        self.ended_at = 0.0
        """Unix time; 0 while it runs."""
        self.stored_to = 0
        """Cursor up to which the store has its blocks."""
        self.in_store = False
        """Whether it was created in the store."""
        self.end_stored = False
        """Whether the store has its end."""
        self.tail_stored = False
        """Whether the store has the unfinished block at its end."""
        self.name_stored = True
        """Whether the store has its name."""
        self.memory_only = False
        """Whether the store has dropped it while it ran, and takes no more of its blocks."""
        self.last_viewed = time.monotonic()
        """Time at which it last had a subscriber."""
        self.awaited = False
        """Whether a request is about to subscribe to it."""
        self.fan_out = FanOut(UNLIMITED, wheel, memory, owner=head.owner, heartbeat_ticks=wheel.ticks(route.heartbeat_seconds))
        self._wheel = wheel
        self.request_id = ""
        """ID of the request that opened it; empty for a restored stream."""
        self.span: Span | None = None
        """Span of the request to its upstream, until that has ended."""
        self._relay: Relay | None = None
        self._received = 0
        self._stamper = Stamper(head.id)
        self._before_number = b"id: %b-" % head.id.encode()
        self._most_bytes = route.max_stream_bytes
        self._stamps = route.resume is None or route.resume.ids
        self._watchers: list[_Watcher] = []

    def __repr__(self) -> str:
        return f"<KeptStream {self.head.id} {self.state} {self.fan_out}>"

    @classmethod
    def restore(
        cls, stored: StoredStream, blocks: Sequence[SealedBlocks], tail: bytes, route: Route, wheel: TimerWheel, memory: Budget
    ) -> "KeptStream":
        """Return an ended stream from the store. `tail` is the unfinished block after its blocks."""
        stream = cls(stored.head, route, wheel, memory)
        stream.in_store = stream.end_stored = True
        history = stream.fan_out.history
        for part in blocks:
            history.adopt(part)
        if stored.state == COMPLETE:
            history.end_behind(tail)
        stream.stored_to = history.end
        stream.state, stream.reason, stream.ended_at = stored.state, stored.reason, stored.ended_at
        stream._finish()
        stream.fan_out.holding.set(history.cost)
        return stream

    @property
    def relay(self) -> Relay | None:
        """The relay that reads its upstream, or None."""
        return self._relay

    @property
    def blocks_received(self) -> int:
        """Number of event blocks received from its upstream."""
        return self.fan_out.history.end

    @property
    def size(self) -> int:
        """Bytes kept."""
        history = self.fan_out.history
        return history.end_bytes + len(history.tail)

    @property
    def bytes_received(self) -> int:
        """Bytes received from its upstream; 0 for a restored stream."""
        return self._received if self._relay is None else self._relay.bytes_in

    @property
    def is_running(self) -> bool:
        """Whether its upstream may send more."""
        return self.state == RUNNING

    @property
    def viewers(self) -> int:
        """Number of its subscribers."""
        return len(self.fan_out.subscribers)

    def rename(self, name: str) -> None:
        """Set its name, which its upstream's answer has brought."""
        self.head = replace(self.head, name=name)
        self.name_stored = False

    def watch(self, watcher: Callable[[bytes], bool]) -> None:
        """Call `watcher` with new blocks, as the upstream sent them, until it returns True."""
        self._watchers.append(watcher)

    async def follow(self, upstream: UpstreamAnswer) -> None:
        """Read the upstream to its end, or until `stop`."""
        if self.state != RUNNING:
            return
        relay = self._relay = Relay(
            self,
            self._wheel,
            framer=Framer(self.route.max_block_bytes),
            decoder=find_decoder(content_encoding(upstream.headers)),
            until_close=not is_delimited(upstream.headers),
            idle_ticks=self._wheel.ticks(self.route.idle_timeout_seconds),
        )
        attach(upstream, relay)
        await relay.ended()
        if relay.rest:
            self._end_behind(relay.rest)
        self._received = relay.bytes_in
        self._relay = None  # a reference cycle would keep its memory until the next garbage collection
        self._end(COMPLETE if relay.verdict == RELAY_COMPLETE else CUT, relay.reason)

    def write(self, data: bytes) -> None:
        """Append whole blocks, with IDs."""
        if self.state != RUNNING:
            return
        fan_out = self.fan_out
        history = fan_out.history
        if self._watchers:
            self._watchers = [watcher for watcher in self._watchers if not watcher(data)]
        blocks: Sequence[bytes]
        ids: Sequence[str | None] = ()
        if not self._stamps:
            blocks = split_blocks(data)
            ids = [read_id(block) for block in blocks]
        elif self._stamper.comments:
            blocks, ids = self._stamper.stamp(data, history.end + 1)
        elif (
            data.count(b"\n") == 2 and data[:5] == b"data:" and data[-2:] == b"\n\n" and b"\r" not in data
        ):  # one line, as from most upstreams
            blocks = (data[:-1] + self._before_number + b"%d\n\n" % (history.end + 1),)
        elif (plain := stamp_plain(data, self._before_number, history.end + 1)) is not None:
            blocks = plain
        else:
            blocks, ids = self._stamper.stamp(data, history.end + 1)
        if blocks:
            fan_out.pass_on(blocks, ids)
        if history.cost + len(self._stamper.comments) > self._most_bytes:
            self._stop_too_large()

    def _end_behind(self, rest: bytes) -> None:
        """Keep the unfinished block at the end of the upstream's response."""
        history = self.fan_out.history
        tail = self._stamper.finish(rest) if self._stamps else rest
        if history.cost + len(tail) > self._most_bytes:
            self._stop_too_large()
        elif self.state == RUNNING:
            history.end_behind(tail)

    def _stop_too_large(self) -> None:
        self.stop(TOO_LARGE, f"the stream exceeds {self._most_bytes} bytes, the limit of its route")

    def writelines(self, data: Iterable[bytes]) -> None:
        """Append whole blocks, given in parts."""
        self.write(b"".join(data))

    def is_closing(self) -> bool:
        """Whether it takes no more blocks."""
        return self.state != RUNNING

    def find(self, id: str) -> int | None:
        """Return the cursor after the event with this ID of the upstream's, or None."""
        return self.fan_out.history.find(id)

    def cursor_after(self, last_event_id: str) -> int | None:
        """Return the cursor after the event with this ID, 0 for an empty ID, or None if it is not one of this stream."""
        if not last_event_id:
            return 0
        stamped = read_stamp(last_event_id)
        if stamped is None or stamped[0] != self.head.id:
            return self.find(last_event_id)  # the upstream may be a gateway too, whose IDs look the same
        return stamped[1] if stamped[1] <= self.fan_out.history.end else None

    def is_over_after(self, cursor: int) -> bool:
        """Whether the stream is complete and has no event after `cursor`. Blocks without data are not events."""
        history = self.fan_out.history
        while self.state == COMPLETE and cursor < history.end:
            blocks, cursor = history.read(cursor, history.end)
            if Parser().feed(blocks):
                return False
        return self.state == COMPLETE

    def stop(self, state: str = STOPPED, reason: str = "it was stopped") -> None:
        """End it before its upstream does. No effect if it has ended."""
        self._end(state, reason)
        if self._relay is not None:
            self._relay.end(RELAY_CUT, reason)

    def viewer_left(self) -> None:
        """Record that a subscriber has left, or that a request did not become one."""
        self.awaited = False
        self.last_viewed = time.monotonic()
        if not self.route.orphan_seconds:
            self.stop_if_orphaned(self.last_viewed)

    def stop_if_orphaned(self, now: float) -> None:
        """End it after the route's `orphan_seconds` without a subscriber."""
        if self.viewers or self.awaited:
            self.last_viewed = now
        elif self.state == RUNNING and now - self.last_viewed >= self.route.orphan_seconds:
            self.stop(ORPHANED, f"no client followed it for {self.route.orphan_seconds:g} s")

    def _end(self, state: str, reason: str) -> None:
        if self.state != RUNNING:
            return
        self.state, self.reason, self.ended_at = state, reason, time.time()
        self._finish()
        history = self.fan_out.history
        log.info(
            "stream ended",
            stream=self.head.id[:8],  # the whole ID would give readers of the log access to the stream
            route=self.route.path,
            state=state,
            reason=reason,
            blocks=history.end,
            bytes=self.size,
            seconds=round(self.ended_at - self.head.opened_at, 3),
            request_id=self.request_id,
        )
        if self.span is not None:
            counts = {"eventstream.blocks": history.end, "eventstream.bytes": self.bytes_received}
            self.span.end({"http.response.status_code": 200, "eventstream.verdict": state, **counts}, reason if state != COMPLETE else "")
            self.span = None

    def _finish(self) -> None:
        self.fan_out.history.seal()
        if self.state == COMPLETE:
            self.fan_out.finish(RELAY_COMPLETE)
        else:
            self.fan_out.finish(RELAY_CUT, f"{self.state}: {self.reason}" if self.reason else self.state)

    def disconnect(self) -> None:
        """Disconnect its subscribers to free memory. They can resume, because the store has the stream."""
        for subscriber in tuple(self.fan_out.subscribers):
            subscriber.disconnect(BEHIND, "the gateway needed the memory")

    def close(self) -> None:
        """Stop counting its memory. A request that has found it may still read from it."""
        self.fan_out.holding.close()
