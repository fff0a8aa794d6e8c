"""Relay one upstream body to one downstream connection."""

import asyncio
from collections.abc import Callable
from functools import partial

from eventstream import HEARTBEAT, HEARTBEAT_BLOCK, BlockTooLarge, Framer, count_blocks, encode_retry
from eventstream.decoding import Decoder

from .decoding import Decoding, Parts, Pieces, has_many_lines
from .error_event import error_block
from .flow import Sink, Source, http_chunk
from .heartbeats import shows_id
from .wheel import TimerWheel

_LINE_ENDS = (b"\n", b"\r")
_COPY_BYTES = 16 * 1024  # below this, one copy into one buffer is cheaper than three buffers

COMPLETE = "complete"
"""The upstream completed its response, and the client got all of it."""
CUT = "cut"
"""The upstream was lost, sent nothing for the idle timeout, or sent an invalid stream. The client's response ends incomplete."""
LEFT = "left"
"""The client disconnected."""
DRAINED = "drained"
"""The gateway shut down."""


class Relay:
    """Forward body bytes as they arrive, without a task, queue or timer per chunk.

    `sink` accepts the bytes: a transport, or a buffer for a whole body. `chunked` says whether the relay makes HTTP chunks.

    With a framer (event streams) the relay sends whole blocks, each in the call that brought its last byte, and a heartbeat after
    `heartbeat_ticks` without other output. An unfinished block at the end of the response is the `rest`. With `until_close`, only the end
    of the connection delimits the body, and an end within a line is a cut. `resumes` says that the client sent a last event ID.

    The owner of the transport calls `pause` when its buffer is over the high-water mark and `resume` when it has drained; meanwhile the
    upstream is paused. So at most one read and one transport buffer are in memory, plus the unfinished block. The upstream is paused too
    while its data is decoded, or its many small blocks are forwarded, over several turns of the event loop.
    """

    __slots__ = (
        "_chunked",
        "_decoding",
        "_framer",
        "_heartbeat_ticks",
        "_idle_ticks",
        "_last_read",
        "_last_write",
        "_shown_id",
        "_sink",
        "_sink_is_full",
        "_until_close",
        "_waiter",
        "_waiting_end",
        "_wheel",
        "blocks_out",
        "bytes_in",
        "bytes_out",
        "heartbeats",
        "reason",
        "rest",
        "slot",
        "tap",
        "upstream",
        "verdict",
    )

    def __init__(
        self,
        sink: Sink,
        wheel: TimerWheel,
        *,
        chunked: bool = False,
        framer: Framer | None = None,
        decoder: Decoder | None = None,
        until_close: bool = False,
        resumes: bool = False,
        heartbeat_ticks: int = 0,
        idle_ticks: int = 0,
    ) -> None:
        self._sink = sink
        self._chunked = chunked
        self._framer = framer
        self._decoding: Decoding | None = None
        self._until_close = until_close
        self._shown_id = resumes or not heartbeat_ticks
        self._wheel = wheel
        self._heartbeat_ticks = heartbeat_ticks
        self._idle_ticks = idle_ticks
        self._waiter: asyncio.Future[None] | None = None
        self.upstream: Source | None = None
        self._waiting_end: tuple[str, str] | None = None  # (verdict, reason) once all is decoded
        self._sink_is_full = False
        self.verdict = ""
        """How it ended; empty while it is open."""
        self.reason = ""
        """Details that the verdict alone does not give."""
        self.rest = b""
        """The unfinished block at the end of the upstream's response."""
        self.bytes_in = 0
        self.bytes_out = 0
        self.blocks_out = 0
        self.heartbeats = 0
        self.slot = 0
        self.tap: Callable[[bytes, bytes, int], None] | None = None
        """While the dashboard tails the stream: called with the framer's input, its blocks and the number of bytes it holds back."""
        if decoder is not None:
            self._decode_with(decoder)
        if heartbeat_ticks or idle_ticks:
            wheel.add(self, wheel.now)
        self._last_read = self._last_write = wheel.now

    def __repr__(self) -> str:
        return f"<Relay {self.verdict or ('paused' if self.paused else 'open')} in={self.bytes_in} out={self.bytes_out}>"

    @property
    def paused(self) -> bool:
        """Whether the upstream is paused."""
        return self._sink_is_full or self._is_decoding

    @property
    def _is_decoding(self) -> bool:
        return self._decoding is not None and self._decoding.is_pending

    @property
    def framed(self) -> bool:
        """Whether it knows where blocks end, so that the gateway may add one of its own."""
        return self._framer is not None

    def _decode_with(self, decoder: Parts) -> None:
        failed = partial(self.end, CUT)
        self._decoding = Decoding(decoder, self._take_part, tired=self._pause_upstream, rested=self._decoded, failed=failed)

    def feed(self, chunk: bytes) -> None:
        """Forward body bytes from the upstream."""
        if self.verdict:
            return
        self._last_read = self._wheel.now
        self.bytes_in += len(chunk)
        if self._decoding is None and self._framer is not None and has_many_lines(chunk):
            self._decode_with(Pieces())
        if self._decoding is not None:
            self._decoding.feed(chunk)
        elif self._framer is None:
            self._forward(chunk)
        else:
            self._frame(chunk)

    def _frame(self, chunk: bytes) -> None:
        assert self._framer is not None
        try:
            blocks = self._framer.feed(chunk)
        except BlockTooLarge as error:
            blocks = error.complete
            self.end(CUT, str(error))
        if self.tap is not None:
            self.tap(chunk, blocks, self._framer.pending_bytes)
        if blocks:
            if not self._shown_id:
                self._shown_id = shows_id(blocks)
            self._forward(blocks, count_blocks(blocks))

    def _take_part(self, part: bytes) -> bool:
        self._frame(part)
        return not (self._sink_is_full or self.verdict)

    def _pause_upstream(self) -> None:
        if self.upstream is not None:
            self.upstream.pause()

    def _decoded(self) -> None:
        """End or resume the upstream, after decoding took several turns."""
        if self._waiting_end is not None:
            self._finish(*self._waiting_end)
        elif self.upstream is not None and not self._sink_is_full:
            self.upstream.resume()

    def _forward(self, data: bytes, blocks: int = 0) -> None:
        sink = self._sink
        if sink.is_closing():
            return  # the client has disconnected, and aiohttp is about to report it: nothing is sent or counted
        self._last_write = self._wheel.now
        self.bytes_out += len(data)
        self.blocks_out += blocks
        if not self._chunked:
            sink.write(data)
        elif len(data) < _COPY_BYTES:
            sink.write(http_chunk(data))
        else:
            sink.writelines((b"%x\r\n" % len(data), data, b"\r\n"))

    def pause(self) -> None:
        """Pause the upstream: the sink's buffer is full."""
        self._sink_is_full = True
        self._pause_upstream()

    def resume(self) -> None:
        """Resume the upstream: the sink has drained."""
        self._sink_is_full = False
        self._last_read = self._last_write = self._wheel.now  # neither side was silent
        if self._decoding is not None and self._is_decoding:
            self._decoding.go_on()
        elif self.upstream is not None:
            self.upstream.resume()

    def attached(self, source: Source) -> None:
        """Set the upstream connection, to pause and resume it."""
        self.upstream = source

    def lost(self) -> None:
        """End the relay: the client disconnected."""
        self.end(LEFT)

    def upstream_ended(self) -> None:
        """End the relay: the upstream's response is complete. An unfinished block is the `rest`."""
        self._end_of_input(COMPLETE)

    def upstream_lost(self, reason: str) -> None:
        """End the relay: the upstream was lost before its response was complete."""
        self._end_of_input(CUT, reason)

    def _end_of_input(self, verdict: str, reason: str = "") -> None:
        self._detach_upstream()
        if self._is_decoding:
            self._waiting_end = (verdict, reason)
        else:
            self._finish(verdict, reason)

    def _finish(self, verdict: str, reason: str) -> None:
        """End after everything received. An unfinished block is discarded if the upstream was lost."""
        framer = self._framer
        if verdict == COMPLETE and framer is not None and not self.verdict:
            rest = framer.flush()
            torn = bool(rest) and not rest.endswith(_LINE_ENDS)
            if self._until_close and (torn or (self._decoding is not None and not self._decoding.whole)):
                verdict, reason = CUT, "connection closed in the middle of a line, and nothing else delimits the response"
            elif rest:
                self.rest = rest
                if self.tap is not None:
                    self.tap(b"", rest, 0)
        self.end(verdict, reason)

    def _detach_upstream(self) -> None:
        if self.upstream is not None:
            self.upstream.detach()
            self.upstream = None

    def end(self, verdict: str, reason: str = "") -> None:
        """End the relay. The first verdict stands."""
        if self.verdict:
            return
        self.verdict = verdict
        self.reason = reason
        if self.slot:
            self._wheel.remove(self)
        self._detach_upstream()
        if self._decoding is not None:
            self._decoding.stop()
            self._decoding = None  # a reference cycle would keep its memory until the next garbage collection
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def send_rest(self) -> None:
        """Write the unfinished block at the end of the upstream's response, if there is one."""
        if self.rest:
            self._forward(self.rest)

    def send_error(self, *, ui_messages: bool = False) -> None:
        """Write the error event with the reason, for a client of the AI SDK's `ui_messages` or any other."""
        self._forward(error_block(self.reason, ui_messages=ui_messages))

    def send_retry(self, milliseconds: int) -> None:
        """Write a `retry` line at the end of the stream, if the relay knows where blocks end."""
        if self.framed:
            self._forward(encode_retry(milliseconds))

    def fire(self, now: int) -> int:
        """Send a heartbeat, or end the relay at the idle timeout, if one is due. Return the tick of the next check."""
        if self.paused:
            self._last_read = now
            return now + (self._heartbeat_ticks or self._idle_ticks)
        if self._idle_ticks and now - self._last_read >= self._idle_ticks:
            self.end(CUT, f"upstream sent nothing for {self._idle_ticks * self._wheel.tick_seconds:g} s")
            return 0
        if self._heartbeat_ticks and now - self._last_write >= self._heartbeat_ticks and not self._sink.is_closing():
            self.heartbeats += 1
            if not self.bytes_out and self._framer is not None:
                self._framer.drop_mark()
            self._forward(HEARTBEAT if self._shown_id else HEARTBEAT_BLOCK)
        periods = (self._last_write, self._heartbeat_ticks), (self._last_read, self._idle_ticks)
        return min(last + ticks for last, ticks in periods if ticks)

    async def ended(self) -> None:
        """Wait until the relay has ended."""
        if not self.verdict:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
