"""Cut an event stream at the ends of its event blocks, without altering a byte.

HTML standard 9.2.5: a line ends with LF, CRLF or CR, and a blank line ends a block. Two adjacent bytes decide: LF LF, LF CR and
CR CR always close a blank line, while CR LF is one line end. So the last boundary of a chunk is found by a backward search
for those pairs, at the speed of `bytes.rfind`; no loop in Python looks at single bytes.
"""

import itertools
import re
from collections.abc import Iterator

from .errors import BlockTooLarge

DEFAULT_MAX_BLOCK_BYTES = 8 * 1024 * 1024
"""8 MiB: an image in base64 fits, and a stream without blank lines is refused before it costs much memory."""

DEFAULT_MAX_BLOCK_LINES = 100_000
"""The lines of one event block: parsing this many takes less than 0.1 s of CPU. An event of 8 MiB has more only with lines of less than
80 characters."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""The byte order mark. Readers strip one from the beginning of an event stream (HTML standard 9.2.4)."""

_CR = 0x0D
_LF = 0x0A
_LINE_ENDS = re.compile(rb"[\r\n]*")


class Framer:
    """Return the whole event blocks of one upstream connection as they are completed.

    The returned blocks, joined, are the fed bytes without one leading byte order mark and without the unfinished block at the end,
    which `flush` returns. Chunks may be cut anywhere. A lone CR at the end of a chunk ends its line at once. If an LF then turns it
    into a CRLF, that LF is returned at the start of the next blocks, where it has no meaning.

    `max_block_bytes` bounds one block up to the byte that makes its last line blank, and thus the memory held back. `max_block_lines`
    bounds its lines before the blank one, and thus the time that parsing it takes. With `keeps_mark` the byte order mark stays, for a
    reader that gets this connection's bytes and nothing before them.
    """

    __slots__ = ("_counted", "_few_bytes", "_head", "_pending", "_pending_lines", "keeps_mark", "max_block_bytes", "max_block_lines")

    def __init__(
        self,
        max_block_bytes: int = DEFAULT_MAX_BLOCK_BYTES,
        *,
        max_block_lines: int = DEFAULT_MAX_BLOCK_LINES,
        keeps_mark: bool = False,
    ) -> None:
        if max_block_bytes < 1:
            raise ValueError(f"max_block_bytes is {max_block_bytes}, must be at least 1")
        if max_block_lines < 1:
            raise ValueError(f"max_block_lines is {max_block_lines}, must be at least 1")
        self.max_block_bytes = max_block_bytes
        self.max_block_lines = max_block_lines
        self._few_bytes = min(max_block_bytes, max_block_lines)  # a block of this many bytes is within both limits
        self._pending_lines = self._counted = 0  # lines in the first _counted bytes of _pending
        self.keeps_mark = keeps_mark
        self._pending = bytearray()  # not a list of chunks, which would take 50 bytes for each chunk of two bytes
        self._head: bytes | None = b""  # the first bytes while they may be a byte order mark, then None

    def __repr__(self) -> str:
        return f"<Framer pending={self.pending_bytes} max={self.max_block_bytes}>"

    @property
    def pending_bytes(self) -> int:
        """The number of bytes of the unfinished block that are held back."""
        return len(self._pending)

    @property
    def unfinished(self) -> bytearray:
        """The unfinished block that is held back; callers must not change it."""
        return self._pending

    def feed(self, chunk: bytes) -> bytes:
        """Return the blocks that `chunk` completes, joined; empty when it completes none.

        Raises BlockTooLarge, after which the framer must not be used.
        """
        if self._head is not None:
            chunk = self._begin(self._head + chunk)
        if chunk[-2:] == b"\n\n" and not self._pending and len(chunk) <= self._few_bytes:
            return chunk  # the usual case: whole blocks
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
        """Return the unfinished block and forget it, for a stream that has ended."""
        rest = (self._head or b"") + bytes(self._pending)
        self._head = None
        self._clear()
        return rest

    def drop_mark(self) -> None:
        """Drop the byte order mark, before `feed` has returned anything, because the reader gets other bytes first.

        A reader strips a mark only at the very beginning. Anywhere else it would become part of the first field's name.
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
        """Return the offset just after the last whole block that ends in `chunk`, 0 when none does."""
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
        """Return the same for a block that only the first line end of `chunk` completes."""
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
            self._clear()
        if len(blocks) > self._few_bytes:
            self._refuse_too_large(blocks)
        return blocks

    def _clear(self) -> None:
        self._pending.clear()
        self._pending_lines = self._counted = 0

    def _hold(self, part: bytes, complete: bytes) -> None:
        pending = self._pending
        pending += part
        if len(pending) <= self._few_bytes:
            return
        if len(pending) > self.max_block_bytes:
            raise BlockTooLarge(len(pending), self.max_block_bytes, complete)
        self._pending_lines += _count_lines(pending, self._counted, len(pending))
        self._counted = len(pending)
        if self._pending_lines > self.max_block_lines:
            raise BlockTooLarge(self._pending_lines, self.max_block_lines, complete, unit="lines")

    def _refuse_too_large(self, blocks: bytes) -> None:
        has_many = _count_lines(blocks, 0, len(blocks)) > self.max_block_lines
        if not has_many and len(blocks) <= self.max_block_bytes:
            return
        start = _LINE_ENDS.match(blocks).end()  # type: ignore[union-attr]  # it always matches, if only zero bytes
        for blank, end in _blank_lines(blocks, start):
            size = blank + 2 - start
            if size > self.max_block_bytes:
                raise BlockTooLarge(size, self.max_block_bytes, blocks[:start])
            if size > self.max_block_lines and (lines := _count_lines(blocks, start, blank + 1)) > self.max_block_lines:
                raise BlockTooLarge(lines, self.max_block_lines, blocks[:start], unit="lines")
            start = end


def _count_lines(blocks: bytes | bytearray, begin: int, end: int) -> int:
    """Return the number of lines that end between two offsets. A CRLF that `begin` cuts counts at its CR."""
    lines = blocks.count(b"\n", begin, end)
    if crs := blocks.count(b"\r", begin, end):
        lines += crs - blocks.count(b"\r\n", begin, end)
    if lines and begin and blocks[begin - 1 : begin + 1] == b"\r\n":
        lines -= 1
    return lines


def split_blocks(blocks: bytes) -> list[bytes]:
    """Return the single event blocks of a result of `Framer.feed`. Further blank lines stay with the block before them.

    Joined, they are `blocks` again. Blank lines before the first block are an item of their own.
    """
    start = _LINE_ENDS.match(blocks).end()  # type: ignore[union-attr]
    cuts = [0, start] if start else [0]
    cuts += [end for _, end in _blank_lines(blocks, start)]
    return [blocks[begin:end] for begin, end in itertools.pairwise(cuts)]


def _blank_lines(blocks: bytes, start: int) -> Iterator[tuple[int, int]]:
    """Yield, for each blank line after `start`, the offset of the pair of bytes that marks it, and the end of its run of line ends.

    For these pairs `bytes.find` is ten times as fast as a regular expression, which matters for blocks of megabytes. A pair is searched
    for again only after its last match was passed, so a pair that never occurs costs a single search.
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
    """Return the number of event blocks in a result of `Framer.feed`, at the speed of `bytes.count`.

    Meant for statistics: several blank lines in a row may count as further blocks.
    """
    count = blocks.count(b"\n\n")
    if b"\r" in blocks:
        count += blocks.count(b"\n\r") + blocks.count(b"\r\r")
    return count
