"""Cuts an event stream where its event blocks end, and alters no byte of it.

HTML standard 9.2.5: a line ends with LF, CRLF or CR, and a blank line ends a block. Two neighbouring bytes tell: LF LF, LF CR and
CR CR always close a blank line, while CR LF is one line end. So the last boundary of a chunk is found by searching backwards
for those pairs, at the speed of `bytes.rfind`, and no byte is looked at in Python.
"""

import itertools
import re
from collections.abc import Iterator

from .errors import BlockTooLarge

DEFAULT_MAX_BLOCK_BYTES = 8 * 1024 * 1024
"""8 MiB: an image in base64 fits, a stream that forgot its blank lines is noticed before it costs much."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""A reader of an event stream strips one from its beginning (HTML standard 9.2.4)."""

_CR = 0x0D
_LF = 0x0A
_LINE_ENDS = re.compile(rb"[\r\n]*")


class Framer:
    """Gives the whole event blocks of one upstream connection, as they get complete.

    The blocks that it gave, joined, are the bytes that it was fed, less one leading byte order mark and less the unfinished block
    at the end, which `flush` returns. Chunks may be cut anywhere. A lone CR at the end of a chunk ends its line at once; an LF that
    turns it into a CRLF is given with the next chunk, in front of whatever follows, where it means nothing.

    `max_block_bytes` bounds one block up to the byte that makes its last line blank, and with it the memory held back. With `keeps_mark`
    the byte order mark stays, for a reader that gets this connection's bytes and nothing ahead of them.
    """

    __slots__ = ("_head", "_pending", "keeps_mark", "max_block_bytes")

    def __init__(self, max_block_bytes: int = DEFAULT_MAX_BLOCK_BYTES, *, keeps_mark: bool = False) -> None:
        if max_block_bytes < 1:
            raise ValueError(f"max_block_bytes is {max_block_bytes}, must be at least 1")
        self.max_block_bytes = max_block_bytes
        self.keeps_mark = keeps_mark
        self._pending = bytearray()  # not a list of chunks: those of two bytes would take fifty each
        self._head: bytes | None = b""  # the first bytes while they may be a byte order mark, then None

    def __repr__(self) -> str:
        return f"<Framer pending={self.pending_bytes} max={self.max_block_bytes}>"

    @property
    def pending_bytes(self) -> int:
        """Bytes of the unfinished block that are held back."""
        return len(self._pending)

    @property
    def unfinished(self) -> bytearray:
        """The unfinished block that is held back, to be looked at and not to be changed."""
        return self._pending

    def feed(self, chunk: bytes) -> bytes:
        """Gives the blocks that `chunk` completes, joined; empty when it completes none.

        Raises BlockTooLarge, after which the framer is of no further use.
        """
        if self._head is not None:
            chunk = self._begin(self._head + chunk)
        if chunk[-2:] == b"\n\n" and not self._pending and len(chunk) <= self.max_block_bytes:
            return chunk  # the usual case: whole blocks, nothing to look for
        if not chunk:
            return b""
        cut = self._last_boundary(chunk)
        if cut == len(chunk):
            return self._take(chunk)
        if cut:
            blocks = self._take(chunk[:cut])
            self._hold(chunk[cut:], blocks)
            return blocks
        self._hold(chunk, b"")
        return b""

    def flush(self) -> bytes:
        """Return the unfinished block and forget it: the stream has ended behind it."""
        rest = (self._head or b"") + bytes(self._pending)
        self._head = None
        self._pending.clear()
        return rest

    def drop_mark(self) -> None:
        """Drop the byte order mark after all, before `feed` has given anything: the reader gets something else first.

        A reader strips a mark only from the first bytes of all; behind anything else it would be a part of the first field's name.
        """
        self.keeps_mark = False
        if self._pending.startswith(BYTE_ORDER_MARK):
            del self._pending[: len(BYTE_ORDER_MARK)]

    def _begin(self, head: bytes) -> bytes:
        if len(head) < len(BYTE_ORDER_MARK) and BYTE_ORDER_MARK.startswith(head):
            self._head = head
            return b""
        self._head = None
        return head if self.keeps_mark else head.removeprefix(BYTE_ORDER_MARK)

    def _last_boundary(self, chunk: bytes) -> int:
        """Offset just behind the last whole block that ends in `chunk`, 0 when none does."""
        if b"\r" not in chunk:
            at = chunk.rfind(b"\n\n")
            if at >= 0:
                return at + 2
        else:
            at = chunk.rfind(b"\n\r")
            at = max(at, chunk.rfind(b"\r\r", at + 1), chunk.rfind(b"\n\n", at + 1))
            if at >= 0:
                return at + 3 if chunk[at + 1 : at + 3] == b"\r\n" else at + 2
        return self._leading_boundary(chunk)

    def _leading_boundary(self, chunk: bytes) -> int:
        """The same for a block that only the first line end of `chunk` completes."""
        first = chunk[0]
        if first not in (_CR, _LF):
            return 0
        if self._pending:
            previous = self._pending[-1]
            if previous not in (_CR, _LF) or (previous, first) == (_CR, _LF):
                return 0
        return 2 if chunk[:2] == b"\r\n" else 1

    def _take(self, blocks: bytes) -> bytes:
        if self._pending:
            blocks = b"".join((self._pending, blocks))
            self._pending.clear()
        if len(blocks) > self.max_block_bytes:
            self._refuse_too_large(blocks)
        return blocks

    def _hold(self, part: bytes, complete: bytes) -> None:
        self._pending += part
        if len(self._pending) > self.max_block_bytes:
            raise BlockTooLarge(len(self._pending), self.max_block_bytes, complete)

    def _refuse_too_large(self, blocks: bytes) -> None:
        start = _LINE_ENDS.match(blocks).end()  # type: ignore[union-attr]  # it matches nothing at least
        for blank, end in _blank_lines(blocks, start):
            size = blank + 2 - start
            if size > self.max_block_bytes:
                raise BlockTooLarge(size, self.max_block_bytes, blocks[:start])
            start = end


def split_blocks(blocks: bytes) -> list[bytes]:
    """Gives the single event blocks of what `Framer.feed` gave; further blank lines stay with the block before them.

    Joined they are `blocks` again. Blank lines in front of the first block are an item of their own.
    """
    start = _LINE_ENDS.match(blocks).end()  # type: ignore[union-attr]
    cuts = [0, start] if start else [0]
    cuts += [end for _, end in _blank_lines(blocks, start)]
    return [blocks[begin:end] for begin, end in itertools.pairwise(cuts)]


def _blank_lines(blocks: bytes, start: int) -> Iterator[tuple[int, int]]:
    """Gives for each blank line behind `start` the offset of the pair of bytes that tells it, and where its run of line ends stops.

    `bytes.find` is ten times as fast as a regular expression for the pairs, which counts for blocks of megabytes. Each pair is
    looked for again only when its last finding is behind us, so that one that never comes costs a single search.
    """
    size = len(blocks)

    def find(pair: bytes) -> int:
        at = blocks.find(pair, start)
        return size if at < 0 else at

    lf_lf = find(b"\n\n")
    has_cr = b"\r" in blocks
    lf_cr, cr_cr = (find(b"\n\r"), find(b"\r\r")) if has_cr else (size, size)
    while (blank := min(lf_lf, lf_cr, cr_cr)) < size:
        start = blank + 2
        if start < size and blocks[start] in (_LF, _CR):
            start = _LINE_ENDS.match(blocks, start).end()  # type: ignore[union-attr]
        yield blank, start
        if lf_lf < start:
            lf_lf = find(b"\n\n")
        if lf_cr < start:
            lf_cr = find(b"\n\r")
        if cr_cr < start:
            cr_cr = find(b"\r\r")


def count_blocks(blocks: bytes) -> int:
    """Gives how many event blocks there are in what `Framer.feed` gave, at the speed of `bytes.count`.

    Meant for figures: where several blank lines follow each other, it may count some of them as blocks of their own.
    """
    count = blocks.count(b"\n\n")
    if b"\r" in blocks:
        count += blocks.count(b"\n\r") + blocks.count(b"\r\r")
    return count
