"""Lets somebody watch the bytes of one stream as they come from its upstream, and where its blocks are cut."""

import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from eventstream import count_blocks, split_blocks

_MOST_BLOCKS = 400
_MOST_BYTES = 256 * 1024
"""So much is kept for a tail until it is taken; what comes beyond that is only counted."""
_MOST_SHOWN_BYTES = 16 * 1024
_MOST_CUTS = 256

SentAs = Callable[[list[bytes]], list[bytes | None]]
"""Gives how the gateway sends each of these blocks on; None for one that it does not send by itself."""


class Tappable(Protocol):
    """What has a framer: a relay, or an event source."""

    tap: Callable[[bytes, bytes, int], None] | None


class Tap:
    """Stands in a stream while somebody tails it, and gives each tail what the stream's framer was fed and gave."""

    def __init__(self) -> None:
        self.tails: list[Tail] = []

    def __call__(self, chunk: bytes, blocks: bytes, pending_bytes: int) -> None:
        for tail in self.tails:
            tail.take(chunk, blocks, pending_bytes)


class Tail:
    """Gathers what one who watches is shown next: chunks as they came, each with the blocks that it completed, and their cuts.

    It never makes the stream wait: whoever takes too seldom finds the rest only counted.
    """

    def __init__(self, stream: Tappable, sent_as: SentAs | None = None) -> None:
        self._stream = stream
        self._sent_as = sent_as
        self._cuts: list[int] = []  # where chunks began within the unfinished block
        self._clear()
        tap = stream.tap
        if not isinstance(tap, Tap):
            tap = stream.tap = Tap()
        tap.tails.append(self)

    def _clear(self) -> None:
        self._records: list[dict[str, Any]] = []
        self._blocks = self._bytes = self._left_out_chunks = self._left_out_blocks = 0

    def close(self) -> None:
        """Stops watching; the stream is as if nobody ever had."""
        tap = self._stream.tap
        if isinstance(tap, Tap) and self in tap.tails:
            tap.tails.remove(self)
            if not tap.tails:
                self._stream.tap = None

    def take(self, chunk: bytes, blocks: bytes, pending_bytes: int) -> None:
        """Takes a chunk as it came, the whole blocks that it completed, joined, and how many bytes wait for the rest of theirs."""
        if not chunk:
            return  # the stream has ended
        held = max(0, len(blocks) + pending_bytes - len(chunk))
        if not held:
            self._cuts.clear()  # also when another connection has begun
        elif len(self._cuts) < _MOST_CUTS:
            self._cuts.append(held)
        full = self._blocks >= _MOST_BLOCKS or self._bytes >= _MOST_BYTES or len(self._records) >= _MOST_BLOCKS
        if full:
            self._left_out_chunks += 1
            self._left_out_blocks += count_blocks(blocks)
        else:
            record = {"at": time.time(), "chunk": len(chunk), "pending": pending_bytes, "blocks": self._show(blocks)}
            self._records.append(record)
        if blocks:
            self._cuts.clear()

    def _show(self, blocks: bytes) -> list[dict[str, Any]]:
        split = split_blocks(blocks) if blocks else []
        room = max(1, _MOST_BLOCKS - self._blocks)
        self._left_out_blocks += len(split[room:])
        split = split[:room]
        sent = self._sent_as(split) if self._sent_as is not None else split
        shown, start = [], 0
        for block, sent_block in zip(split, sent, strict=True):
            cuts = [cut - start for cut in self._cuts if start < cut < start + len(block)]
            shown.append(show_block(block, cuts, sent_block))
            start += len(block)
            self._bytes += min(len(block), _MOST_SHOWN_BYTES)
        self._blocks += len(split)
        return shown

    def drain(self) -> dict[str, Any] | None:
        """Gives what has come since it was last called, None when nothing has."""
        if not self._records and not self._left_out_chunks:
            return None
        gathered = {"chunks": self._records, "left_out_chunks": self._left_out_chunks, "left_out_blocks": self._left_out_blocks}
        self._clear()
        return gathered


def show_block(block: bytes, cuts: Iterable[int] = (), sent: bytes | None = b"") -> dict[str, Any]:
    """Gives a block as text in parts, one for each chunk that brought some of it. Bytes that are not UTF-8 are shown as `\\xff`, such as
    those of a character that two chunks brought. With `sent`, also how it left if that is different, None if it did not."""
    shown, parts, start = block[:_MOST_SHOWN_BYTES], [], 0
    for cut in [*(cut for cut in cuts if cut < len(shown)), len(shown)]:
        parts.append(shown[start:cut].decode("utf-8", "backslashreplace"))
        start = cut
    facts: dict[str, Any] = {"parts": parts, "size": len(block)}
    if sent is None:
        facts["sent"] = None
    elif sent and sent != block:
        facts["sent"] = sent[:_MOST_SHOWN_BYTES].decode("utf-8", "backslashreplace")
    return facts
