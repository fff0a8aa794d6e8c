"""HTTP/1.1 messages as naively as RFC 9112 can be written down, to hold the gateway against: strict in all that frames a message."""

import re
from dataclasses import dataclass, field

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(rb"(%b) +([^\x00-\x20\x7f]+) +HTTP/1\.([01])" % _TOKEN)  # blanks may be several (RFC 9112 section 3)
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([0-9]{3})(?: ([^\x00-\x08\x0a-\x1f\x7f]*))?")
_FIELD = re.compile(rb"(%b):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*?)[ \t]*" % _TOKEN)
_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
_CHUNK = re.compile(rb"([0-9A-Fa-f]+)(?:[ \t]*;[ \t]*(?:%b)?(?:=(?:%b|%b)?)?)*" % (_TOKEN, _TOKEN, _QUOTED))  # a name may be empty
_MOST_SIZE_DIGITS = 16


class Malformed(Exception):
    """Bytes that are no message, or that may be read in two ways."""


class Incomplete(Exception):
    """A message of which more must come."""


@dataclass
class Message:
    """A request or a response."""

    first: tuple[bytes, ...]
    """Method, target and minor version, or minor version, status and reason."""
    fields: list[tuple[bytes, bytes]]
    body: bytes = b""
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    until_close: bool = False
    """Whether only the end of the connection ends the body."""

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def value(self, name: bytes) -> bytes:
        return b", ".join(self.values(name))


def read_request(text: bytes) -> tuple[Message, bytes]:
    """Return the request with which `text` begins, and what is behind it. Raises Malformed, Incomplete."""
    request, rest = _read_head(text.lstrip(b"\r\n"), _REQUEST_LINE)
    if request.first[2] == b"1" and len(request.values(b"Host")) != 1:
        raise Malformed("no Host, or several")
    if len(request.values(b"Host")) > 1:
        raise Malformed("several Hosts")
    framing = _framing(request, int(request.first[2]))
    return _read_body(request, framing if framing is not None else 0, rest)


def read_response(text: bytes, method: str = "GET") -> tuple[Message, bytes]:
    """Return the final response with which `text` begins, and what is behind it. Raises Malformed, Incomplete."""
    text = text.lstrip(b"\r\n")
    while True:
        response, rest = _read_head(text, _STATUS_LINE)
        status = int(response.first[1])
        if status == 101 or not 100 <= status < 200:
            break
        text = rest
    framing = _framing(response, int(response.first[0]))
    if method == "HEAD" or status in (204, 304):
        return response, rest
    if framing is None:
        response.body, response.until_close = rest, True
        return response, b""
    return _read_body(response, framing, rest)


def _read_head(text: bytes, first_line: re.Pattern[bytes]) -> tuple[Message, bytes]:
    lines: list[bytes] = []
    while True:
        line, end, text = text.partition(b"\n")
        if not end:
            if b"\r" in line[:-1] or (lines and lines[0] == b""):
                raise Malformed("bare CR")
            raise Incomplete
        if not line.endswith(b"\r"):
            raise Malformed("bare LF")
        if line == b"\r":
            break
        lines.append(line[:-1])
    first = first_line.fullmatch(lines[0]) if lines else None
    if first is None:
        raise Malformed("first line")
    return Message(first.groups(), [_read_field(line) for line in lines[1:]]), text


def _read_field(line: bytes) -> tuple[bytes, bytes]:
    found = _FIELD.fullmatch(line)
    if found is None:
        raise Malformed("field")
    return found[1], found[2]


def _framing(message: Message, minor: int) -> int | None:
    """Return the length of the body, -1 when it is chunked, None when the message does not say."""
    lengths, codings = message.values(b"Content-Length"), message.values(b"Transfer-Encoding")
    if codings:
        if lengths or [coding.lower() for coding in codings] != [b"chunked"] or not minor:
            raise Malformed("coding")
        return -1
    if not lengths:
        return None
    if len(lengths) != 1 or not re.fullmatch(rb"[0-9]{1,19}", lengths[0]):
        raise Malformed("length")
    return int(lengths[0])


def _read_body(message: Message, size: int, text: bytes) -> tuple[Message, bytes]:
    if size >= 0:
        if len(text) < size:
            message.body = text
            raise Incomplete(message)
        message.body = text[:size]
        return message, text[size:]
    while True:
        line, text = _read_line(text, message)
        found = _CHUNK.fullmatch(line)
        if found is None or len(found[1]) > _MOST_SIZE_DIGITS:
            raise Malformed("chunk size")
        count = int(found[1], 16)
        if not count:
            break
        if len(text) < count + 2:
            message.body += text[:count]
            if text[count:] not in (b"", b"\r"):
                raise Malformed("end of a chunk")
            raise Incomplete(message)
        message.body += text[:count]
        if text[count : count + 2] != b"\r\n":
            raise Malformed("end of a chunk")
        text = text[count + 2 :]
    while True:
        line, text = _read_line(text, message)
        if not line:
            return message, text
        message.trailers.append(_read_field(line))


def _read_line(text: bytes, message: Message) -> tuple[bytes, bytes]:
    line, end, rest = text.partition(b"\n")
    if not end:
        if b"\r" in line[:-1]:
            raise Malformed("bare CR")
        raise Incomplete(message)
    if not line.endswith(b"\r") or b"\r" in line[:-1]:
        raise Malformed("bare LF or CR")
    return line[:-1], rest
