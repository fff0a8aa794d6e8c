"""Turn published JSON, lines of JSON or text into event blocks, or refuse them with a reason."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import NoReturn

from eventstream import DEFAULT_MAX_BLOCK_LINES, encode

from ..web.problems import Problem, describe_value

LONGEST_TYPE = 255
LONGEST_RETRY_MS = 86_400_000
MOST_LINES = DEFAULT_MAX_BLOCK_LINES - 100
"""The most lines of an event. Subscribers accept no more in one block, which also has its ID and the gateway's lines."""
GAP_TYPE = "gap"

_MEMBERS = frozenset(("data", "type", "retry"))
_NO_DATA = object()


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of publishing."""

    event_bytes: int
    """Bytes of one event's data."""
    batch_events: int
    batch_bytes: int
    """Bytes of JSON that is stored in one batch."""


class RefusedEvent(ValueError):
    """An event that cannot be published."""

    def __init__(self, field: str, detail: str, *, status: int = HTTPStatus.UNPROCESSABLE_ENTITY, **facts: object) -> None:
        super().__init__(f"{field}: {detail}")
        self.field = field
        self.detail = detail
        self.status = status
        self.facts = facts

    def problem(self, *, item: int | None = None, line: int | None = None) -> Problem:
        """Return the answer. `item` is the index in an array, `line` the line number from 1."""
        field = self.field if item is None else f"{item}.{self.field}"
        facts = self.facts if line is None else {"line": line, **self.facts}
        detail = f"{field}: {self.detail}" if line is None else f"line {line}: {field}: {self.detail}"
        problem = Problem(self.status, detail)
        if self.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            problem.facts = facts
        else:
            problem.facts = {"errors": [{"in": "body", "field": field, "detail": self.detail, **facts}]}
        return problem


def encode_text(body: bytes, limits: Limits) -> bytes:
    """Return the block of an event whose data is `body`. Raises RefusedEvent."""
    if len(body) > limits.event_bytes:
        _refuse_size(len(body), limits)
    try:
        return _bound_lines(encode(body.decode()))
    except UnicodeDecodeError as error:
        raise RefusedEvent("body", f"is not UTF-8 at byte {error.start}: {error.reason}") from None


def decode_json(text: bytes) -> object:
    """Return the value. Raises RefusedEvent for anything but JSON in UTF-8; NaN and Infinity are not JSON."""
    try:
        return _decoder.decode(text.decode())
    except UnicodeDecodeError as error:
        raise RefusedEvent("body", f"is not UTF-8 at byte {error.start}: {error.reason}") from None
    except json.JSONDecodeError as error:
        raise RefusedEvent("body", f"is not JSON at character {error.pos}: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise RefusedEvent("body", f"cannot be read as JSON: {error}") from None


def encode_event(value: object, limits: Limits) -> bytes:
    """Return the block of the event that a JSON value describes. Raises RefusedEvent."""
    if not isinstance(value, dict):
        raise RefusedEvent("body", 'must be a JSON object such as {"data": …}', got=describe_value(value))
    if not value.keys() <= _MEMBERS:
        name = min(value.keys() - _MEMBERS)
        raise RefusedEvent(str(describe_value(name)), "is not a member of an event; allowed are data, type and retry")
    data = value.get("data", _NO_DATA)
    if data is _NO_DATA:
        raise RefusedEvent("data", "is missing; any JSON value is allowed")
    text = data if isinstance(data, str) else _write_json(data)
    try:
        size = len(text) if text.isascii() else len(text.encode())
        if size > limits.event_bytes:
            _refuse_size(size, limits)
        return _bound_lines(encode(text, type=_check_type(value.get("type")), retry=_check_retry(value.get("retry"))))
    except UnicodeEncodeError:
        raise RefusedEvent("body", "has a lone surrogate, which cannot be sent as UTF-8") from None


def encode_array(values: list[object], limits: Limits) -> list[bytes]:
    """Return the blocks of a JSON array's events. Raises Problem."""
    if not values:
        raise RefusedEvent("body", "has no event").problem()
    if len(values) > limits.batch_events:
        detail = f"the array has {len(values)} events, allowed are {limits.batch_events}; send more as application/x-ndjson"
        raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail, got=len(values), allowed=limits.batch_events)
    blocks = []
    for item, value in enumerate(values):
        try:
            blocks.append(encode_event(value, limits))
        except RefusedEvent as error:
            raise error.problem(item=item) from None
    return blocks


async def split_lines(body: AsyncIterator[bytes], limits: Limits) -> AsyncIterator[tuple[int, bytes]]:
    """Yield each non-blank line with its number, as the body arrives. Raises Problem for a line that is too long."""
    number = 0
    begun: list[bytes] = []  # pieces of a line whose end has not come
    size = 0
    async for chunk in body:
        *ended, rest = chunk.split(b"\n")
        for line in ended:
            number += 1
            if begun:
                begun.append(line)
                line = b"".join(begun)
                begun.clear()
                size = 0
            _check_line(number, len(line), limits)
            if line.strip():
                yield number, line
        if rest:
            begun.append(rest)
            size += len(rest)
            _check_line(number + 1, size, limits)
    line = b"".join(begun)
    if line.strip():
        yield number + 1, line


def _write_json(data: object) -> str:
    try:
        return _encoder.encode(data)
    except (ValueError, RecursionError) as error:  # 1e999 is read as infinity, which cannot be written
        raise RefusedEvent("data", f"cannot be written as JSON: {error}") from None


def _check_line(number: int, size: int, limits: Limits) -> None:
    if size > limits.batch_bytes:
        detail = f"line {number} has {size} bytes or more, allowed are {limits.batch_bytes}"
        raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail, line=number, got=size, allowed=limits.batch_bytes)


def _check_type(event_type: object) -> str | None:
    if event_type is None:
        return None
    if not isinstance(event_type, str):
        raise RefusedEvent("type", "must be a string", got=describe_value(event_type))
    if not event_type:
        raise RefusedEvent("type", "is empty; leave it out for an event without a type", got="")
    if len(event_type) > LONGEST_TYPE:
        raise RefusedEvent("type", f"has more than {LONGEST_TYPE} characters", got=len(event_type), allowed=LONGEST_TYPE)
    if any(character in event_type for character in "\r\n\0"):
        raise RefusedEvent("type", "has a line end or NUL", got=describe_value(event_type))
    if event_type == GAP_TYPE:
        raise RefusedEvent("type", "is reserved for the producer, which reports missed events with it", got=GAP_TYPE)
    return event_type


def _check_retry(retry: object) -> int | None:
    if retry is None:
        return None
    if not isinstance(retry, int) or isinstance(retry, bool) or not 0 <= retry <= LONGEST_RETRY_MS:
        got = describe_value(retry)
        raise RefusedEvent("retry", f"must be a whole number of milliseconds from 0 to {LONGEST_RETRY_MS}", got=got)
    return retry


def _refuse_size(size: int, limits: Limits) -> NoReturn:
    detail = f"has {size} bytes, allowed are {limits.event_bytes}"
    raise RefusedEvent("data", detail, status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE, got=size, allowed=limits.event_bytes)


def _bound_lines(block: bytes) -> bytes:
    lines = block.count(b"\n") - 1 if len(block) > MOST_LINES else 0  # the last one is blank
    if lines > MOST_LINES:
        detail = f"has more than {MOST_LINES} lines, which subscribers refuse; send fewer, or JSON without line ends"
        raise RefusedEvent("data", detail, status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE, got=lines, allowed=MOST_LINES)
    return block


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_decoder = json.JSONDecoder(parse_constant=_refuse_constant)
_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
