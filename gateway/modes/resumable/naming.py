"""Find the name of an answer, and the position of an event, in what clients and upstreams send."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from urllib.parse import parse_qsl, unquote

import msgspec
from aiohttp import web

from eventstream import Parser

from ...policy.resume import MOST_NAME_CHARACTERS, Source

_MOST_VALUE_BYTES = 8 * MOST_NAME_CHARACTERS  # in JSON a character may be escaped
_MOST_ARRAY_BYTES = 64 * 1024  # each element of an array becomes an object in memory
_MOST_EVENTS = 100  # in which a name is looked for
_ARRAY = re.compile(rb"[ \t\r\n]*\[")
_INDEX = re.compile("0|[1-9][0-9]{0,4}")
_ELEMENTS = msgspec.json.Decoder(list[msgspec.Raw])
_VALUE = msgspec.json.Decoder(str | int)


class _Member(msgspec.Struct):
    value: msgspec.Raw


class JsonPointer:
    """Read the string or integer at a JSON pointer (RFC 6901), without building the rest of the document.

    Of duplicate names in an object the last counts. Arrays of more than 64 KiB are not searched.
    """

    def __init__(self, tokens: Sequence[str]) -> None:
        self._steps = [(token, _member_decoder(token)) for token in tokens]

    def __repr__(self) -> str:
        return f"<JsonPointer /{'/'.join(token for token, _ in self._steps)}>"

    def read(self, document: bytes | msgspec.Raw) -> str | int | None:
        """Return the value, or None if the document is not JSON, has none there, or has one of another type or of more than 8 KiB."""
        try:
            for token, members in self._steps:
                if _ARRAY.match(document) is None:
                    document = members.decode(document).value
                elif memoryview(document).nbytes > _MOST_ARRAY_BYTES or not _INDEX.fullmatch(token):
                    return None
                else:
                    document = _ELEMENTS.decode(document)[int(token)]
            return _VALUE.decode(document) if memoryview(document).nbytes <= _MOST_VALUE_BYTES else None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, IndexError):
            return None


class NameInEvents:
    """Looks for the name of an answer in its first hundred events."""

    def __init__(self, pointer: tuple[str, ...], found: Callable[[str], None]) -> None:
        self._pointer = json_pointer(pointer)
        self._found = found
        self._events_left = _MOST_EVENTS

    def __repr__(self) -> str:
        return f"<NameInEvents {self._pointer} events_left={self._events_left}>"

    def search(self, blocks: bytes) -> bool:
        """Search the next whole blocks, and return whether the search is over."""
        for event in Parser().feed(blocks):
            self._events_left -= 1
            name = valid_name(self._pointer.read(event.data.encode()))
            if name:
                self._found(name)
            if name or self._events_left <= 0:
                return True
        return False


def name_in_request(source: Source, request: web.BaseRequest, target: str, body: bytes) -> str:
    """Return the name that a request gives its answer, empty without one. `body` is needed for the source `body` only."""
    if source.kind == "header":
        return valid_name(request.headers.get(source.key))
    if source.kind == "query":
        return valid_name(parameter(target.partition("?")[2], source.key))
    return valid_name(json_pointer(source.pointer).read(body)) if source.kind == "body" else ""


def name_in_fields(source: Source, fields: Mapping[str, str]) -> str:
    """Return the name in the header fields of an answer, empty without one. Of a path the last segment counts, percent-decoded."""
    if source.kind != "response-header":
        return ""
    value = fields.get(source.key, "").partition("?")[0].rstrip("/")
    return valid_name(unquote(value.rpartition("/")[2]))


def valid_name(value: str | int | None) -> str:
    """Return a value as a name, empty if it cannot be one: if it is missing, or has more than 1,024 characters."""
    name = "" if value is None else str(value)
    return name if len(name) <= MOST_NAME_CHARACTERS else ""


def parameter(query: str, name: str) -> str | None:
    """Return the last value of a parameter in a query, or None."""
    return dict(parse_qsl(query, keep_blank_values=True, errors="surrogateescape")).get(name)


@lru_cache(maxsize=256)  # a few for each route; making one takes 0.1 ms
def json_pointer(tokens: tuple[str, ...]) -> JsonPointer:
    """Return the pointer with these tokens."""
    return JsonPointer(tokens)


def _member_decoder(name: str) -> msgspec.json.Decoder[_Member]:
    """Return a decoder of objects that takes the member `name`, and skips all others."""
    return msgspec.json.Decoder(msgspec.defstruct("Member", [("value", msgspec.Raw)], bases=(_Member,), rename={"value": name}))
