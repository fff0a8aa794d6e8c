"""Find the block after a position that clients count themselves, such as the sequence number of the OpenAI Responses API."""

import asyncio

from eventstream import Parser, split_blocks

from ...streams.history import History
from .naming import JsonPointer, json_pointer


async def cursor_after_position(history: History, pointer: tuple[str, ...], position: int) -> int:
    """Return the cursor before the first event whose position is greater, or the end of the history without one.

    Events without a position are skipped. A long history is searched in several turns of the event loop.
    """
    positions = json_pointer(pointer)
    if position < 0:
        return 0
    if position < history.end and _position(history.copy(position, position + 1)[0], positions) == position:  # the usual numbers, from 0
        return position + 1
    cursor = 0
    while cursor < history.end:
        blocks, after = history.copy(cursor, history.end)
        for block in split_blocks(blocks):
            found = _position(block, positions)
            if found is not None and found > position:
                return cursor
            cursor += 1
        cursor = after
        await asyncio.sleep(0)  # let other events proceed
    return history.end


def _position(block: bytes, positions: JsonPointer) -> int | None:
    """Return the position of the event in a block, or None."""
    value = next((positions.read(event.data.encode()) for event in Parser().feed(block)), None)
    return value if isinstance(value, int) else None
