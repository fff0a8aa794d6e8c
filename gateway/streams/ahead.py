"""The last event ID of a subscriber that joins a stream which is followed already."""

from eventstream import split_blocks

from .stamping import has_data, read_ids


def place_ahead(line: bytes, blocks: bytes) -> tuple[bytes, bytes]:
    """Return `blocks` with an `id:` line at the head of the first one that has data, and what is left of the line for later blocks.

    A block that sets the ID itself makes the line needless. The line is never a block of its own: there are clients that take each block
    behind an ID for an event.
    """
    begin = 0
    for block in split_blocks(blocks):
        if read_ids(block):
            return blocks, b""
        if has_data(block):
            return blocks[:begin] + line + blocks[begin:], b""
        begin += len(block)
    return blocks, line
