"""Write event blocks (HTML standard 9.2.5), and refuse values that would break their framing."""

import re

HEARTBEAT = b":\n"
"""One comment line, for a connection that has sent an `id`: after a blank line, OpenAI's SDKs would yield an event without data there."""

HEARTBEAT_BLOCK = b":\n\n"
"""The same as a block of its own, for a connection that has sent no `id`. Clients that split at blank lines lose an event whose block
begins with a comment, so a bare comment line ahead of an event would cost them that event."""

_LINE_END = re.compile(r"\r\n|\n|\r")


def encode(
    data: str | None = None,
    *,
    type: str | None = None,
    id: str | None = None,
    retry: int | None = None,
    comment: str | None = None,
) -> bytes:
    """Return one event block with LF line ends. Fields that are not None come in the order comment, id, event, retry, data.

    Data and comment may have several lines; receivers read every CRLF, CR or LF in them as LF. `retry` is in milliseconds.
    Raises ValueError for a line end in `id` or `type`, NUL in `id`, a negative `retry`, a lone surrogate, or no field at all.
    """
    lines: list[str] = []
    if comment is not None:
        lines += (f": {line}" if line else ":" for line in _LINE_END.split(comment))
    if id is not None:
        _refuse_line_ends("id", id)
        if "\0" in id:
            raise ValueError(f"id {id!r} contains NUL; receivers ignore such an id")
        lines.append(f"id: {id}")
    if type is not None:
        _refuse_line_ends("type", type)
        lines.append(f"event: {type}")
    if retry is not None:
        if retry < 0:
            raise ValueError(f"retry must be at least 0 milliseconds, got {retry}")
        lines.append(f"retry: {retry}")
    if data is not None:
        lines += (f"data: {line}" for line in _LINE_END.split(data))
    if not lines:
        raise ValueError("an event block needs at least one of data, type, id, retry and comment")
    return ("\n".join(lines) + "\n\n").encode()


def encode_retry(milliseconds: int) -> bytes:
    """Return a `retry` line without a blank line, for the end of a stream or the start of its next block.

    A reader that takes fields line by line learns the reconnection time, and no reader sees a block without data.
    Raises ValueError if `milliseconds` is negative.
    """
    return encode(retry=milliseconds)[:-1]


def _refuse_line_ends(field: str, value: str) -> None:
    if "\n" in value or "\r" in value:
        raise ValueError(f"{field} {value!r} contains a line end, which would start another field")
