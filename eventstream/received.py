"""The event blocks that were read from a stream and not yet yielded, and the unfinished one."""

from collections import deque

from .errors import BlockTooLarge
from .framer import Framer, split_blocks
from .parser import Parser


class Received:
    """The blocks of successive connections that wait for `parser`, which is fed each one when it is popped.

    Comments and `retry` take effect with their own line (HTML standard 9.2.6); `look_ahead` takes those of the unfinished block.
    """

    def __init__(self, parser: Parser, max_block_bytes: int) -> None:
        self.too_large: BlockTooLarge | None = None
        """The error to raise after the blocks."""
        self._parser = parser
        self._max_block_bytes = max_block_bytes
        self._blocks: deque[bytes] = deque()
        self._framer = Framer(max_block_bytes)
        self._lines = UnfinishedLines()

    def __repr__(self) -> str:
        return f"<Received blocks={len(self._blocks)} {self._framer}>"

    @property
    def pending_bytes(self) -> int:
        """The number of bytes of the unfinished block."""
        return len(self._framer.unfinished)

    @property
    def newest_retry(self) -> int | None:
        """The reconnection time after everything that was received, popped or not."""
        parser = Parser()
        parser.reconnection_time = self._parser.reconnection_time
        parser.feed(b"".join(self._blocks))
        parser.feed_unfinished(UnfinishedLines().take(self._framer.unfinished))
        return parser.reconnection_time

    def open(self) -> None:
        """Start another connection. An unfinished block of the last one is dropped."""
        self._framer = Framer(self._max_block_bytes)
        self._lines = UnfinishedLines()
        self._parser.forget_unfinished()

    def add(self, chunk: bytes) -> bytes:
        """Add the bytes that were read, and return the blocks that they complete, joined. A block over the limit sets `too_large`."""
        try:
            blocks = self._framer.feed(chunk)
        except BlockTooLarge as error:
            self.too_large = error
            blocks = error.complete
        if blocks:
            self._blocks.extend(split_blocks(blocks))
            self._lines = UnfinishedLines()
        return blocks

    def pop(self) -> bytes | None:
        """Return the next block, None when there is none yet. Blank lines that belong to no block are an item of their own."""
        return self._blocks.popleft() if self._blocks else None

    def look_ahead(self) -> bool:
        """Feed the parser the new lines of the unfinished block. Return whether there were any.

        All blocks must have been popped, so that comments keep their order among events.
        """
        lines = self._lines.take(self._framer.unfinished)
        self._parser.feed_unfinished(lines)
        return bool(lines)


class UnfinishedLines:
    """The complete lines of a block that arrives in pieces, each once. No byte is searched twice."""

    __slots__ = ("_begin", "_searched")

    def __init__(self) -> None:
        self._begin = 0  # offset of the first line that is not complete
        self._searched = 0

    def __repr__(self) -> str:
        return f"<UnfinishedLines begin={self._begin} searched={self._searched}>"

    def take(self, block: bytearray) -> list[bytes]:
        """Return the lines that were completed since the last call; `block` then was the same or a prefix of it.

        Empty if none of them is one that counts before its block has ended, a comment or `retry`.
        """
        end = max(block.rfind(b"\n", self._searched), block.rfind(b"\r", self._searched)) + 1
        self._searched = len(block)
        if not end:
            return []
        piece = bytes(block[self._begin : end])
        self._begin = end
        if not _count_at_once(piece):
            return []
        return [line for line in piece.splitlines() if line]  # none is blank, but the LF of a CRLF that was cut looks like one


def _count_at_once(lines: bytes) -> bool:
    """Whether there is a comment or a `retry` among these lines. `in` is many times as fast as a loop over them."""
    return lines.startswith((b":", b"retry:")) or any(begin in lines for begin in (b"\n:", b"\nretry:", b"\r:", b"\rretry:"))
