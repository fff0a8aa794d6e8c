"""Add IDs to a stream, so that clients can resume."""

import re
from collections.abc import Iterator

from eventstream import BYTE_ORDER_MARK, split_blocks

_LINE_ENDS = b"\r\n"
# Each pattern begins with a literal, which `re` finds about as fast as `bytes.find`. A character class or an alternative takes 50 times as
# long.
_DATA = re.compile(rb"\ndata[:\n]")
_FIELD = re.compile(rb"\n(?:event|retry|id)[:\n]")
_ID = re.compile(rb"\nid(?::[ ]?([^\n\0]*))?(?=\n)")
_STAMP = re.compile("([0-9a-f]{32})-([0-9]{1,12})")


def stamp(block: bytes, stream: str, number: int) -> tuple[bytes, str | None] | None:
    """Return a block with `id: <stream>-<number>` as its last line if it has data and no ID, otherwise unchanged, and its own ID.

    Return None if it has no field that clients use.
    The ID is the last line, because some clients store an ID as soon as its line arrives. They would miss the event if the connection broke
    before its end. A stamped block ends with exactly one blank line. An ID with NUL counts as none: clients ignore it.
    """
    if (b"\nid" in block or b"\rid" in block or block.startswith(b"id")) and (id := read_id(block)) is not None:
        return block, id
    if has_data(block):
        if block.endswith(b"\n\n") and block[-3] not in _LINE_ENDS:
            return b"%bid: %b-%d\n\n" % (block[:-1], stream.encode(), number), None
        lines, blank = _cut_blank_line(block)
        return b"%bid: %b-%d\n%b" % (lines, stream.encode(), number, blank), None
    return (block, None) if _FIELD.search(_lines(block)) is not None else None


def has_data(block: bytes) -> bool:
    """Whether a block has data, so that clients dispatch an event."""
    return block.startswith((b"data:", b"data\n", b"data\r")) or _DATA.search(_lines(block)) is not None


def place_ahead(line: bytes, blocks: bytes) -> tuple[bytes, bytes]:
    """Return `blocks` with an `id:` line before the first block that has data, and the part of the line still to be placed.

    The line is dropped if a block before that sets the ID itself. The line is never a block of its own: some clients take each block after
    an ID for an event.
    """
    begin = 0
    for block in split_blocks(blocks):
        if read_ids(block):
            return blocks, b""
        if has_data(block):
            return blocks[:begin] + line + blocks[begin:], b""
        begin += len(block)
    return blocks, line


def stamp_plain(blocks: bytes, before_number: bytes, number: int) -> list[bytes] | None:
    """Stamp joined blocks, the first with `number`, or return None unless all are plain: LF only, with data, no ID, no byte order mark.

    Language models send such blocks, and `stamp` takes ten times as long. `before_number` is `id: <stream>-`.
    """
    if b"\r" in blocks or b"\nid" in blocks or blocks.startswith((b"id", b"\n")):
        return None
    if b"\n\n\n" in blocks or not blocks.endswith(b"\n\n"):
        return None
    lines = blocks[:-2].split(b"\n\n")
    if not all(block.startswith(b"data:") or (b"\ndata:" in block and not block.startswith(BYTE_ORDER_MARK)) for block in lines):
        return None
    return [b"%b\n%b%d\n\n" % (block, before_number, place) for place, block in enumerate(lines, number)]


def guard_mark(block: bytes) -> bytes:
    """Return a block, with a comment line before it if it begins with a byte order mark.

    A client whose stream begins with this block would strip the mark, and see a field that the upstream's own clients do not see.
    """
    return b":\n" + block if block.startswith(BYTE_ORDER_MARK) else block


def _cut_blank_line(block: bytes) -> tuple[bytes, bytes]:
    """Return the lines of a block, and its first blank line."""
    end = len(block.rstrip(_LINE_ENDS))
    end += 2 if block.startswith(b"\r\n", end) else 1
    return block[:end], block[end : end + 2] if block.startswith(b"\r\n", end) else block[end : end + 1]


def read_id(block: bytes) -> str | None:
    """Return the last event ID that a block sets, or None if it sets none."""
    found = read_ids(block)
    return found[-1].decode("utf-8", "replace") if found else None


def read_ids(blocks: bytes) -> list[bytes]:
    """Return the values of all `id` fields that clients do not ignore."""
    found: list[bytes] = _ID.findall(_lines(blocks))
    return found


def _lines(blocks: bytes) -> bytes:
    """Return blocks with an LF before each line, as the patterns expect."""
    return b"\n" + blocks.replace(b"\r", b"\n")


def find_ids(blocks: bytes) -> Iterator[tuple[int, str]]:
    """Yield the position and the value of each `id` field in `blocks` that clients do not ignore."""
    for match in _ID.finditer(_lines(blocks)):
        yield match.end() - 1, (match[1] or b"").decode("utf-8", "replace")


def read_stamp(id: str) -> tuple[str, int] | None:
    """Return the stream and the number of an ID that `stamp` made, or None for any other ID."""
    match = _STAMP.fullmatch(id)
    return (match[1], int(match[2])) if match is not None else None
