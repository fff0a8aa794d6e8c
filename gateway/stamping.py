"""Gives each event of a stream an ID by which a client can come back."""

import re

_FIELD = re.compile(rb"(?:\A|[\r\n])(data|id)(?=[:\r\n])")
_ID = re.compile(rb"(?:\A|[\r\n])id(?::[ ]?([^\r\n\0]*))?[\r\n]")
_STAMP = re.compile("([0-9a-f]{32})-([0-9]{1,12})")


def stamp(block: bytes, stream: str, number: int) -> tuple[bytes, str | None]:
    """Gives a block with `id: <stream>-<number>` at its head if it has data and no ID, else as it is; and the ID that it came with."""
    names = _FIELD.findall(block)
    if b"id" in names:
        found = _ID.findall(block)
        return block, found[-1].decode("utf-8", "replace") if found else None
    if b"data" in names:
        return b"id: %b-%d\n%b" % (stream.encode(), number, block), None
    return block, None


def read_stamp(id: str) -> tuple[str, int] | None:
    """Gives stream and number of an ID that was made here, None for any other."""
    match = _STAMP.fullmatch(id)
    return (match[1], int(match[2])) if match is not None else None
