"""Find where the requests on a connection end, before aiohttp's server parses them.

That server does not tell when the head of a request has come, or that a body's chunks are malformed. What is ambiguous here is refused;
what is only wrong is left to aiohttp's parser.
"""

import re
from typing import Protocol

from ..policy.refusal import Refusal
from ..policy.target import to_ascii
from .malformed import BAD_BODY

_BEGIN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?: |\Z)")
_FIRST_LINE = re.compile(rb"[^ ]+ .* HTTP/([0-9])\.([0-9])\r?\n")
_END = re.compile(rb"\n\r?\n")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[^\r\n]*)?\r\n")
_BEGUN_CHUNK = re.compile(rb"[0-9A-Fa-f]{1,16}(?:;[^\r\n]*)?\r?")
_TRAILER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[^\r\n\x00]*\r\n")
_FRAMING_FIELDS = frozenset((b"content-length", b"transfer-encoding", b"host"))
_LEAST_BYTES_OF_FIELD = 16


class Refused(Exception):
    """What came cannot be followed."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.detail)
        self.refusal = refusal


def head_too_large(max_head_bytes: int) -> Refusal:
    """Return the refusal of a head larger than this limit."""
    return Refusal(431, "head", f"the head is larger than the limit of {max_head_bytes} bytes")


class Body(Protocol):
    """The framing of a request's body."""

    ended: bool

    def take(self, pending: bytearray) -> bytes:
        """Remove from `pending` what belongs to the body, and return it. Raises Refused."""


def begins_request(pending: bytearray) -> bool:
    """Return whether `pending` may be the beginning of a request."""
    return _BEGIN.match(pending) is not None


def take_head(pending: bytearray, max_head_bytes: int) -> bytes | None:
    """Remove a head from `pending` and return it, None if it is incomplete. Raises Refused."""
    del pending[: len(pending) - len(pending.lstrip(b"\r\n"))]
    if not pending:
        return None
    if not begins_request(pending):
        raise Refused(Refusal(400, "malformed", "the request is not valid HTTP"))
    end = _END.search(pending)
    if (end.end() if end else len(pending)) > max_head_bytes:
        raise Refused(head_too_large(max_head_bytes))
    if end is None:
        return None
    head = bytes(pending[: end.end()])
    version = _FIRST_LINE.match(head)
    if version is not None and version[1] != b"1":
        number = f"{version[1].decode()}.{version[2].decode()}"
        raise Refused(Refusal(505, "malformed", f"HTTP/{number} is not supported; use HTTP/1.1 or 1.0"))
    del pending[: end.end()]
    return head


def for_parser(head: bytes) -> tuple[bytes, bytes]:
    """Return a head whose target is ASCII, as aiohttp's parser needs it, and its first line as received if that is not ASCII."""
    line, end, rest = head.partition(b"\n")
    return (head, b"") if line.isascii() else (to_ascii(line) + end + rest, line)


def body_of(head: bytes, max_head_bytes: int) -> Body | None:
    """Return the framing of the body behind `head`, None without one."""
    length = 0
    for line in head.split(b"\n")[1:]:
        name, _, value = line.partition(b":")
        match name.strip().lower():
            case b"transfer-encoding":
                return ChunkedBody(max_head_bytes)
            case b"content-length" if value.strip().isdigit():
                length = int(value)
    return SizedBody(length) if length else None


class SizedBody:
    """A body whose length is known."""

    __slots__ = ("_left", "ended")

    def __init__(self, length: int) -> None:
        self._left = length
        self.ended = False

    def take(self, pending: bytearray) -> bytes:
        """Remove from `pending` what belongs to the body, and return it."""
        taken = bytes(pending[: self._left])
        del pending[: self._left]
        self._left -= len(taken)
        self.ended = not self._left
        return taken


class ChunkedBody:
    """A body in chunks (RFC 9112 section 7.1). Lines and trailers are held until they are whole."""

    __slots__ = ("_is_last", "_left", "_max_bytes", "ended")

    def __init__(self, max_bytes: int) -> None:
        self._left = 0  # of a chunk, with the line end behind it
        self._is_last = False
        self._max_bytes = max_bytes
        self.ended = False

    def take(self, pending: bytearray) -> bytes:
        """Remove from `pending` what belongs to the body, and return it. Raises Refused."""
        taken = bytearray()
        while pending and not self.ended and (size := self._measure(pending)):
            taken += pending[:size]
            del pending[:size]
        return bytes(taken)

    def _measure(self, pending: bytearray) -> int:
        """Return how many bytes of `pending` can be taken now, 0 if more must come."""
        if self._is_last:
            return self._measure_trailers(pending)
        if not self._left:
            return self._measure_size(pending)
        size = min(self._left - 2, len(pending))
        if not size:
            if not b"\r\n".startswith(pending[:2]):
                raise Refused(BAD_BODY)
            size = len(pending[:2]) // 2 * 2
        self._left -= size
        return size

    def _measure_size(self, pending: bytearray) -> int:
        line = _CHUNK.match(pending)
        if line is None:
            if not _BEGUN_CHUNK.fullmatch(pending):
                raise Refused(BAD_BODY)
            if len(pending) > self._max_bytes:
                raise Refused(head_too_large(self._max_bytes))
            return 0
        size = int(line[1], 16)
        self._is_last = not size
        self._left = size + 2
        return line.end()

    def _measure_trailers(self, pending: bytearray) -> int:
        at = fields = 0
        while not pending.startswith(b"\r\n", at):
            line = _TRAILER.match(pending, at)
            if line is None:
                if b"\n" in pending[at:]:
                    raise Refused(BAD_BODY)
                at = len(pending)
                break
            if line[1].lower() in _FRAMING_FIELDS:
                raise Refused(BAD_BODY)
            at, fields = line.end(), fields + 1
        if max(at, fields * _LEAST_BYTES_OF_FIELD) > self._max_bytes:
            raise Refused(head_too_large(self._max_bytes))
        if not pending.startswith(b"\r\n", at):
            return 0
        self.ended = True
        return at + 2
