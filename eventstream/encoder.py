"""Writes event blocks (HTML standard 9.2.5), and refuses what would break their framing."""

import re

HEARTBEAT = b":\n"
"""One comment line, for a connection that has shown an `id`: OpenAI's SDKs yield an event without data for a blank line then."""

HEARTBEAT_BLOCK = b":\n\n"
"""The same as a block of its own, for a connection that has shown no `id`. Clients that split at blank lines lose an event whose block
begins with a comment, so that a bare comment line ahead of it would cost them that event."""

_LINE_END = re.compile(r"\r\n|\n|\r")


def encode(
    data: str | None = None,
    *,
    type: str | None = None,
    id: str | None = None,
    retry: int | None = None,
    comment: str | None = None,
) -> bytes:
    """Gives one event block, LF line ends, with the fields that are not None in the order comment, id, event, retry, data.

    Data and comment may have several lines; every CRLF, CR or LF in them reads as LF at the other end. `retry` is in milliseconds.
    Raises ValueError for a line end in `id` or `type`, NUL in `id`, a negative `retry`, a lone surrogate, or no field at all.
    """
    lines: list[str] = []
    if comment is not None:
        lines += (f": {line}" if line else ":" for line in _LINE_END.split(comment))
    if id is not None:
        _refuse_line_ends("id", id)
        if "\0" in id:
            raise ValueError(f"id {id!r} contains NUL, which makes receivers ignore it")
        lines.append(f"id: {id}")
    if type is not None:
        _refuse_line_ends("type", type)
        lines.append(f"event: {type}")
    if retry is not None:
        if retry < 0:
            raise ValueError(f"retry is {retry}, must be a number of milliseconds that is not negative")
        lines.append(f"retry: {retry}")
    if data is not None:
        lines += (f"data: {line}" for line in _LINE_END.split(data))
    if not lines:
        raise ValueError("an event block needs at least one of data, type, id, retry and comment")
    return ("\n".join(lines) + "\n\n").encode()


def encode_retry(milliseconds: int) -> bytes:
    """Return a `retry` line without a blank line, for the end of a stream or the head of its next block.

    A reader that takes fields as their lines come learns the reconnection time, and no reader sees a block without data.
    Raises ValueError if `milliseconds` is negative.
    """
    return encode(retry=milliseconds)[:-1]


def _refuse_line_ends(field: str, value: str) -> None:
    if "\n" in value or "\r" in value:
        raise ValueError(f"{field} {value!r} contains a line end, which would start another field")
