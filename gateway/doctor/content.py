"""Judge the bytes of an event stream: line ends, encoding, and blocks that clients misread."""

import collections
import re
from collections.abc import Iterator

from .anatomy import BYTE_ORDER_MARK, FIELDS, Anatomy
from .findings import Finding
from .quoting import Quote

_LINE_END = re.compile(rb"\r\n|\n|\r")
_LONG_LINE_BYTES = 64 * 1024
_QUOTED_BYTES = 12
_SHORT_RETRY_MS = 100
_LONG_RETRY_MS = 3_600_000
_NAMES = {b"\r\n": "CRLF", b"\n": "LF", b"\r": "CR"}


def judge_content(anatomy: Anatomy, quote: Quote) -> Iterator[Finding]:
    """Judge the bytes, whatever their times of arrival."""
    yield _judge_blocks(anatomy, quote)
    if not anatomy.blocks and not anatomy.unfinished:
        return
    yield _judge_line_ends(anatomy)
    yield from _judge_byte_order_marks(anatomy)
    yield _judge_encoding(anatomy, quote)
    yield from _judge_blocks_without_data(anatomy, quote)
    yield from _judge_fields(anatomy, quote)
    yield _judge_retry(anatomy)
    yield _judge_sizes(anatomy)


def _judge_blocks(anatomy: Anatomy, quote: Quote) -> Finding:
    events = len(anatomy.events)
    shown = f"{len(anatomy.blocks)} blocks, {events} of them events, {len(anatomy.body)} bytes"
    if events:
        types = collections.Counter(block.event.type for block in anatomy.blocks if block.event)
        return Finding("events", "ok", f"{shown}; types: {', '.join(quote(name, 30) for name, _ in types.most_common(5))}")
    if not anatomy.body:
        return Finding(
            "events",
            "note",
            "no byte of the body arrived",
            "the source was silent, or a proxy holds its bytes",
            "listen longer (--seconds)",
        )
    lines = [line for line in anatomy.body.splitlines() if line]
    foreign = [line for line in lines if line.partition(b":")[0].decode("latin-1") not in ("", *FIELDS)]
    if len(foreign) > len(lines) / 2:
        means = f"clients get no event: these are not event stream fields; the first line is {quote(anatomy.body.splitlines()[0], 40)}"
        return Finding("events", "problem", shown, means, "put data: before each line and a blank line after each event")
    return Finding("events", "note", shown, "clients would get no event from this", "listen longer (--seconds)")


def _judge_line_ends(anatomy: Anatomy) -> Finding:
    count = collections.Counter(_NAMES[found] for found in _LINE_END.findall(anatomy.body))
    shown = ", ".join(f"{name} {number}" for name, number in count.most_common()) or "none"
    if len(count) > 1:
        means = "allowed, but clients that expect one kind of line end join events or miss them"
        return Finding("line ends", "warning", shown, means, "send LF only; find which hop adds the other kind")
    if "CR" in count:
        means = "allowed, but most clients other than browsers know only LF and CRLF, and see no event"
        return Finding("line ends", "warning", shown, means, "send LF")
    if "CRLF" in count:
        means = "allowed, but clients that split at LF LF see no event"
        return Finding("line ends", "note", shown, means, "send LF")
    return Finding("line ends", "ok", shown)


def _judge_byte_order_marks(anatomy: Anatomy) -> Iterator[Finding]:
    if anatomy.begins_with_byte_order_mark:
        means = "browsers drop it; other clients treat it as part of the first field's name and lose that field"
        yield Finding("byte order mark", "warning", "the stream begins with EF BB BF", means, "write UTF-8 without a byte order mark")
    marked = [block for block in anatomy.blocks if any(line.startswith(BYTE_ORDER_MARK) for line in block.lines())]
    if marked:
        means = "there it is part of the field's name, so clients ignore the field; this happens when files or streams are joined"
        yield Finding(
            "byte order mark",
            "problem",
            f"a line at byte {marked[0].offset} begins with EF BB BF",
            means,
            "remove it where they are joined",
        )


def _judge_encoding(anatomy: Anatomy, quote: Quote) -> Finding:
    body = anatomy.body[: len(anatomy.body) - len(anatomy.unfinished)]  # an unfinished block may end inside a character
    try:
        body.decode()
    except UnicodeDecodeError as error:
        shown = quote.mask(body)[max(0, error.start - _QUOTED_BYTES) : error.start + _QUOTED_BYTES].hex(" ")
        means = "clients decode it as U+FFFD, or fail: the text was cut inside a character, or is in another encoding"
        return Finding(
            "encoding", "problem", f"byte {error.start} is not UTF-8: {shown}", means, "write UTF-8, and cut text between characters"
        )
    return Finding("encoding", "ok", "UTF-8")


def _judge_blocks_without_data(anatomy: Anatomy, quote: Quote) -> Iterator[Finding]:
    """Report blocks without data. Comments in blocks of their own are harmless before the first ID."""
    first_id = next((place for place, block in enumerate(anatomy.blocks) if "id" in block.names()), len(anatomy.blocks))
    bare = [block for place, block in enumerate(anatomy.blocks) if block.event is None and (block.names() or place > first_id)]
    kinds = collections.Counter(" and ".join(sorted(set(block.names()))) or "comment" for block in bare)
    if bare:
        shown = ", ".join(
            f"{number} with {'only a comment' if kind == 'comment' else quote(kind)}" for kind, number in kinds.most_common(4)
        )
        means = "browsers ignore them; popular SDKs treat each as an event and fail, because the data is empty and not JSON"
        do = "after the first id, send heartbeats as a comment line without a blank line (:\\n), and send id and retry together with data"
        yield Finding("blocks without data", "warning", f"{len(bare)}: {shown}; the first is {quote(bare[0].raw, 40)}", means, do)


def _judge_fields(anatomy: Anatomy, quote: Quote) -> Iterator[Finding]:
    unknown = collections.Counter(name for block in anatomy.blocks for name in block.names() if name not in FIELDS)
    if unknown:
        shown = ", ".join(f"{quote(name, 20)} ({number} times)" for name, number in unknown.most_common(4))
        means = "clients ignore fields with other names; names are case-sensitive"
        yield Finding("fields", "warning", shown, means, "send only data, event, id and retry; start each line of data with data:")
    nul = [block for block in anatomy.blocks for line in block.lines() if line.startswith(b"id:") and b"\0" in line]
    if nul:
        yield Finding("fields", "warning", f"an id at byte {nul[0].offset} contains NUL", "clients ignore it", "send ids without NUL")


def _judge_retry(anatomy: Anatomy) -> Finding:
    values = [line.partition(b":")[2].strip() for block in anatomy.blocks for line in block.lines() if line.startswith(b"retry")]
    if any(not value.isdigit() for value in values):
        return Finding("retry", "warning", "a retry with characters other than digits", "clients ignore it", "send milliseconds as digits")
    retry = anatomy.reconnection_time
    if retry is None:
        return Finding(
            "retry", "note", "none", "clients reconnect after their own default, a few seconds", "send retry: 3000 with the first event"
        )
    if retry < _SHORT_RETRY_MS:
        return Finding(
            "retry", "warning", f"{retry} ms", "when the server is down, all clients reconnect in a tight loop", "send a few seconds"
        )
    if retry > _LONG_RETRY_MS:
        return Finding(
            "retry", "warning", f"{retry} ms", "a disconnected client stays away for more than an hour", "send milliseconds, a few thousand"
        )
    return Finding("retry", "ok", f"{retry} ms")


def _judge_sizes(anatomy: Anatomy) -> Finding:
    if (excess := anatomy.too_large) is not None:
        means = "the block has no end, or is larger than clients buffer; the rest was not examined"
        return Finding(
            "sizes",
            "problem",
            f"a block of more than {excess.limit} bytes",
            means,
            "send a blank line after each event; send large content as a URL",
        )
    longest = max((len(block.raw) for block in anatomy.blocks), default=0)
    line = max((len(line) for block in anatomy.blocks for line in block.lines()), default=0)
    if line >= _LONG_LINE_BYTES:
        means = "clients that read line by line reject lines of 64 KiB by default (asyncio's readline, Go's bufio.Scanner)"
        return Finding(
            "sizes", "warning", f"longest line {line} bytes, largest block {longest}", means, "split the data into several data lines"
        )
    return Finding("sizes", "ok", f"largest block {longest} bytes")
