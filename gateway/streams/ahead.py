"""The last event ID of a subscriber that joins a running stream."""

from eventstream import split_blocks

from .stamping import has_data, read_ids


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
