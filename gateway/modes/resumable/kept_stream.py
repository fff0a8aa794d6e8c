"""One stream that outlives its client."""

import asyncio
import time
from collections.abc import Iterable, Sequence

import aiohttp
import structlog

from eventstream import Framer, Parser, split_blocks
from eventstream.decoding import find_decoder
from service.tracing import Span

from ...access.budget import Budget
from ...http.headers import content_encoding, is_delimited
from ...http.upstream import attach
from ...http.upstream_client import UpstreamAnswer
from ...policy.routes import Route
from ...streams.fan_out import FanOut
from ...streams.history import UNLIMITED
from ...streams.relay import COMPLETE as RELAY_COMPLETE
from ...streams.relay import CUT as RELAY_CUT
from ...streams.relay import Relay
from ...streams.sealed import SealedBlocks
from ...streams.stamping import guard_mark, read_stamp, stamp, stamp_plain
from ...streams.subscriber import BEHIND
from ...streams.wheel import TimerWheel
from .store import COMPLETE, CUT, ORPHANED, RUNNING, STOPPED, TOO_LARGE, StoredStream, StreamHead

log = structlog.get_logger()

_LINE_ENDS = b"\r\n"


class KeptStream:
    """What an upstream answers to one request, kept from its first block on, for all that come for it, now or later.

    It is the sink of the relay that reads the upstream: blocks get their IDs here, go into the history, and leave for those who follow in
    the same turn of the event loop.
    """

    def __init__(self, head: StreamHead, route: Route, wheel: TimerWheel, memory: Budget) -> None:
        self.head = head
        self.route = route
        self.state = RUNNING
        self.reason = ""
        """What happened, when the state alone does not say it."""
        self.ended_at = 0.0
        """Unix time; 0 while it runs."""
        self.stored_to = 0
        """Up to which cursor the store has it."""
        self.in_store = False
        """Whether the store knows it."""
        self.end_stored = False
        """Whether the store knows how it ended."""
        self.tail_stored = False
        """Whether the store has the unfinished block behind which it ended."""
        self.memory_only = False
        """Whether the store has dropped it while it ran, for others, and takes no more of it."""
        self.last_viewed = time.monotonic()
        """When somebody was last seen to follow it."""
        self.awaited = False
        """Whether the request that opened it is about to follow it."""
        self.fan_out = FanOut(UNLIMITED, wheel, memory, owner=head.owner, heartbeat_ticks=wheel.ticks(route.heartbeat_seconds))
        self._wheel = wheel
        self.request_id = ""
        """Of the request that opened it; empty for one that was restored."""
        self.span: Span | None = None
        """What is told of the request to its upstream, until that has ended."""
        self._relay: Relay | None = None
        self._received = 0
        self._comments = bytearray()
        self._before_number = b"id: %b-" % head.id.encode()
        self._most_bytes = route.max_stream_bytes

    def __repr__(self) -> str:
        return f"<KeptStream {self.head.id} {self.state} {self.fan_out}>"

    @classmethod
    def restore(
        cls, stored: StoredStream, blocks: Sequence[SealedBlocks], tail: bytes, route: Route, wheel: TimerWheel, memory: Budget
    ) -> "KeptStream":
        """Return a stream that has ended as the store has it; `tail` is the unfinished block behind its blocks."""
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
        """What reads its upstream, None when nothing does."""
        return self._relay

    @property
    def blocks_received(self) -> int:
        """Event blocks that came of its upstream."""
        return self.fan_out.history.end

    @property
    def size(self) -> int:
        """Bytes that are kept of it."""
        history = self.fan_out.history
        return history.end_bytes + len(history.tail)

    @property
    def bytes_received(self) -> int:
        """Bytes that came of its upstream; 0 for one that was restored."""
        return self._received if self._relay is None else self._relay.bytes_in

    @property
    def viewers(self) -> int:
        """How many follow it now."""
        return len(self.fan_out.subscribers)

    async def follow(self, upstream: UpstreamAnswer) -> None:
        """Reads the upstream to its end, or until `stop`."""
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
        if not attach(upstream, relay):
            await _pump(upstream, relay)
        await relay.ended()
        if relay.rest:
            self._end_behind(relay.rest)
        self._received = relay.bytes_in
        self._relay = None  # a circle would keep its memory until the collector comes by
        self._end(COMPLETE if relay.verdict == RELAY_COMPLETE else CUT, relay.reason)

    def write(self, data: bytes) -> None:
        """Takes whole blocks."""
        if self.state != RUNNING:
            return
        fan_out = self.fan_out
        history = fan_out.history
        if self._comments:
            self._write_any(data)
        elif data.count(b"\n") == 2 and data[:5] == b"data:" and data[-2:] == b"\n\n" and b"\r" not in data:  # one line, as most send
            fan_out.pass_on((data[:-1] + self._before_number + b"%d\n\n" % (history.end + 1),))
        elif (stamped := stamp_plain(data, self._before_number, history.end + 1)) is not None:
            fan_out.pass_on(stamped)
        else:
            self._write_any(data)
        if history.cost + len(self._comments) > self._most_bytes:
            self._stop_too_large()

    def _write_any(self, data: bytes) -> None:
        blocks: list[bytes] = []
        ids: list[str | None] = []
        number = self.fan_out.history.end
        for block in split_blocks(data):
            stamped = stamp(block, self.head.id, number + len(blocks) + 1)
            if stamped is None:
                self._add_comments(block)
                continue
            blocks.append(guard_mark(bytes(self._comments) + stamped[0] if self._comments else stamped[0]))
            ids.append(stamped[1])
            self._comments.clear()
        if blocks:
            self.fan_out.pass_on(blocks, ids)

    def _end_behind(self, rest: bytes) -> None:
        """Keep the unfinished block behind which the upstream has ended, as it is: it is no event, and gets no ID."""
        history = self.fan_out.history
        tail = guard_mark(bytes(self._comments) + rest)
        if history.cost + len(tail) > self._most_bytes:
            self._stop_too_large()
        elif self.state == RUNNING:
            history.end_behind(tail)

    def _stop_too_large(self) -> None:
        self.stop(TOO_LARGE, f"the stream passed {self._most_bytes} bytes, which is what the route keeps of one")

    def _add_comments(self, block: bytes) -> None:
        """Keeps what has only comments for the head of the next block; behind the last one it means nothing to anybody.

        A block of their own would be an event without data for clients that have seen an ID before. Heartbeats are left out: each
        connection has its own, and clients that split at blank lines lose an event that one is glued to.
        """
        lines = block.strip(_LINE_ENDS)
        if lines.strip(b":\r\n"):
            self._comments += lines + b"\n"

    def writelines(self, data: Iterable[bytes]) -> None:
        """Takes whole blocks in parts."""
        self.write(b"".join(data))

    def is_closing(self) -> bool:
        """Tells whether it takes no more."""
        return self.state != RUNNING

    def find(self, id: str) -> int | None:
        """Gives the cursor after the event with this ID of the upstream's, None when it is not here."""
        return self.fan_out.history.find(id)

    def cursor_after(self, last_event_id: str) -> int | None:
        """Return the cursor after the event with this ID, 0 for an empty one, None if it is not of this stream."""
        if not last_event_id:
            return 0
        stamped = read_stamp(last_event_id)
        if stamped is None or stamped[0] != self.head.id:
            return self.find(last_event_id)  # the upstream may be a gateway too, whose IDs look the same
        return stamped[1] if stamped[1] <= self.fan_out.history.end else None

    def is_over_after(self, cursor: int) -> bool:
        """Whether the stream is complete and has no event after `cursor`; blocks without data are none."""
        history = self.fan_out.history
        while self.state == COMPLETE and cursor < history.end:
            blocks, cursor = history.read(cursor, history.end)
            if Parser().feed(blocks):
                return False
        return self.state == COMPLETE

    def stop(self, state: str = STOPPED, reason: str = "it was stopped") -> None:
        """Ends it before its upstream does; no effect when it has ended."""
        self._end(state, reason)
        if self._relay is not None:
            self._relay.end(RELAY_CUT, reason)

    def viewer_left(self) -> None:
        """Takes note that somebody has stopped following it."""
        self.awaited = False
        self.last_viewed = time.monotonic()
        if not self.route.orphan_seconds:
            self.stop_if_orphaned(self.last_viewed)

    def stop_if_orphaned(self, now: float) -> None:
        """Ends it when nobody has followed it for as long as the route allows."""
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
            stream=self.head.id[:8],  # the whole id would let whoever reads the log come for the stream
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

    def send_away(self) -> None:
        """Ends those who follow it, before they have had all; they find it again where it is stored."""
        for subscriber in tuple(self.fan_out.subscribers):
            subscriber.send_away(BEHIND, "the gateway needed the memory")

    def close(self) -> None:
        """Count its memory no longer. A request that has found it may still read from it."""
        self.fan_out.holding.close()


async def _pump(upstream: UpstreamAnswer, relay: Relay) -> None:
    """The way that always works: reads the body through aiohttp's stream reader."""
    try:
        async for chunk in upstream.content.iter_any():
            relay.feed(chunk)
            await asyncio.sleep(0)
            while relay.paused and not relay.verdict:  # there is more to decode
                await asyncio.sleep(0)
        relay.upstream_ended()
    except (aiohttp.ClientError, OSError) as error:
        relay.upstream_lost(str(error) or type(error).__name__)
