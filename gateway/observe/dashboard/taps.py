"""Tap one stream: record its bytes as they arrive from the upstream, and where chunks cut its blocks."""

import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from eventstream import count_blocks, split_blocks

_MOST_BLOCKS = 400
_MOST_BYTES = 256 * 1024
"""Bytes buffered for a tail at most. Further blocks are only counted."""
_MOST_SHOWN_BYTES = 16 * 1024
_MOST_CUTS = 256

SentAs = Callable[[list[bytes]], list[bytes | None]]
"""Returns each block as the gateway sends it, None for a block that it does not send separately."""


class Tappable(Protocol):
    """A relay or an event source: the owner of a framer."""

    tap: Callable[[bytes, bytes, int], None] | None


class Tap:
    """Pass the input and output of a stream's framer to each of its tails, while there are any."""

    def __init__(self) -> None:
        self.tails: list[Tail] = []

    def __call__(self, chunk: bytes, blocks: bytes, pending_bytes: int) -> None:
        for tail in self.tails:
            tail.take(chunk, blocks, pending_bytes)


class Tail:
    """Gather what one viewer is shown next: chunks as received, each with the blocks that it completed and their cuts.

    A tail never slows the stream: if the viewer drains it too rarely, further blocks are only counted.
    """

    def __init__(self, stream: Tappable, sent_as: SentAs | None = None) -> None:
        self._stream = stream
        self._sent_as = sent_as
        self._cuts: list[int] = []  # offsets in the unfinished block at which chunks begin
        self._clear()
        tap = stream.tap
        if not isinstance(tap, Tap):
            tap = stream.tap = Tap()
        tap.tails.append(self)

    def _clear(self) -> None:
        self._records: list[dict[str, Any]] = []
        self._blocks = self._bytes = self._left_out_chunks = self._left_out_blocks = 0

    def close(self) -> None:
        """Stop tailing, and remove the tap from the stream with the last tail."""
        tap = self._stream.tap
        if isinstance(tap, Tap) and self in tap.tails:
            tap.tails.remove(self)
            if not tap.tails:
                self._stream.tap = None

    def take(self, chunk: bytes, blocks: bytes, pending_bytes: int) -> None:
        """Record a received chunk, the complete blocks that it yields, joined, and the number of bytes pending in an unfinished block."""
        if not chunk:
            return  # the stream has ended
        held = max(0, len(blocks) + pending_bytes - len(chunk))
        if not held:
            self._cuts.clear()  # also after a reconnection
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
        """Return what has arrived since the last call, None if nothing has."""
        if not self._records and not self._left_out_chunks:
            return None
        gathered = {"chunks": self._records, "left_out_chunks": self._left_out_chunks, "left_out_blocks": self._left_out_blocks}
        self._clear()
        return gathered


def show_block(block: bytes, cuts: Iterable[int] = (), sent: bytes | None = b"") -> dict[str, Any]:
    """Return a block as text in parts, one for each chunk that carried part of it.

    Bytes that are not UTF-8, such as those of a character split between chunks, are shown as `\\xff`. With `sent`, the result also has the
    block as sent if that differs, or None if it was not sent.
    """
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
