"""Forward header fields through a proxy (RFC 9110 section 7.6, RFC 7239)."""

from collections.abc import Iterable, Mapping
from typing import Any

from multidict import CIMultiDict, CIMultiDictProxy, istr

HOP_BY_HOP = tuple(
    map(
        istr,
        (
            "Connection",
            "Keep-Alive",
            "Proxy-Authenticate",
            "Proxy-Authorization",
            "Proxy-Connection",
            "TE",
            "Trailer",
            "Transfer-Encoding",
            "Upgrade",
        ),
    )
)
"""Fields that apply to one connection only, besides those that its Connection field names."""

VIA = "1.1 gateway"

_LINES_OF_HEAD = 4
_LEAST_BYTES_OF_FIELD = 16  # a field takes more than this in memory

CONTENT_ENCODING = istr("Content-Encoding")

_CONNECTION = HOP_BY_HOP[0]
_CONTENT_LENGTH, _CONTENT_TYPE, _TRANSFER_ENCODING = istr("Content-Length"), istr("Content-Type"), istr("Transfer-Encoding")
_CACHE_CONTROL, _ACCEL_BUFFERING, SERVER = map(istr, ("Cache-Control", "X-Accel-Buffering", "Server"))
_VIA, _FORWARDED, _FOR, _PROTO, _HOST = map(istr, ("Via", "Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host"))


def max_head_bytes(max_header_bytes: int) -> int:
    """Return the limit in bytes for all header fields of a message, given the limit for each."""
    return _LINES_OF_HEAD * max_header_bytes


def head_limits(max_header_bytes: int) -> dict[str, Any]:
    """Return the options for aiohttp's parsers. The limit is in bytes, and each field counts as at least 16."""
    max_headers = max_head_bytes(max_header_bytes) // _LEAST_BYTES_OF_FIELD
    return {"max_line_size": max_header_bytes, "max_field_size": max_header_bytes, "max_headers": max_headers}


def head_bytes(raw_headers: Iterable[tuple[bytes, bytes]]) -> int:
    """Return the size of header fields on the wire in bytes, without optional blanks around their values."""
    return sum(len(name) + len(value) + 4 for name, value in raw_headers)


def end_to_end(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    """Return the fields of a message to forward, in their order and spelling."""
    fields = CIMultiDict(headers)
    for name in fields.getall(_CONNECTION, ()):
        for named in name.split(","):
            fields.popall(named.strip(), None)
    for hop_by_hop in HOP_BY_HOP:
        if hop_by_hop in fields:
            del fields[hop_by_hop]
    for name, value in headers.items():
        if not value.isascii() and name in fields:
            _respell(fields, name)
    return fields


def stream_fields(headers: CIMultiDictProxy[str], leave_out: Iterable[str] = ()) -> CIMultiDict[str]:
    """Return the fields of an upstream's event stream to forward, without `leave_out`. No proxy may store, change or buffer it."""
    fields = end_to_end(headers)
    for name in leave_out:
        fields.popall(name, None)
    fields.setdefault(_CACHE_CONTROL, "no-cache, no-transform")
    fields[_ACCEL_BUFFERING] = "no"
    fields.setdefault(SERVER, "gateway")
    return fields


def is_event_stream(status: int, headers: Mapping[str, str]) -> bool:
    """Whether an answer is an event stream.

    Only a 200 is: APIs send errors with the content type of the requested stream and a JSON body.
    """
    return status == 200 and headers.get(_CONTENT_TYPE, "").partition(";")[0].strip().lower() == "text/event-stream"


def is_delimited(headers: Mapping[str, str]) -> bool:
    """Whether a message says where its body ends, instead of ending with its connection (RFC 9112 section 6.3)."""
    return _TRANSFER_ENCODING in headers or _CONTENT_LENGTH in headers


def content_encoding(headers: CIMultiDict[str] | CIMultiDictProxy[str]) -> str:
    """Return the value of `Content-Encoding`, several fields joined, empty if there is none."""
    return ", ".join(headers.getall(CONTENT_ENCODING)) if CONTENT_ENCODING in headers else ""


def _respell(fields: CIMultiDict[str], name: str) -> None:
    """Read values that are not UTF-8 as Latin-1: aiohttp keeps such bytes as surrogates, which it cannot write."""
    values = fields.popall(name)
    for value in values:
        raw = value.encode("utf-8", "surrogateescape")
        try:
            fields.add(name, raw.decode())
        except UnicodeDecodeError:
            fields.add(name, raw.decode("latin-1"))


def announce_client(fields: CIMultiDict[str], *, client: str, scheme: str, host: str) -> None:
    """Add `Via`, `Forwarded` and `X-Forwarded-For`; `X-Forwarded-Proto` and `-Host` unless a proxy in front has set them."""
    via = fields.getall(_VIA, [])
    fields[_VIA] = ", ".join([*via, VIA])
    node = f'"[{client}]"' if ":" in client else client
    quoted_host = host.replace("\\", "\\\\").replace('"', '\\"')
    forwarded = fields.getall(_FORWARDED, [])
    fields[_FORWARDED] = ", ".join([*forwarded, f'for={node};host="{quoted_host}";proto={scheme}'])
    addresses = fields.getall(_FOR, [])
    fields[_FOR] = ", ".join([*addresses, client])
    fields.setdefault(_PROTO, scheme)
    fields.setdefault(_HOST, host)


def apply_rules(fields: CIMultiDict[str], rules: Mapping[str, str]) -> None:
    """Set the fields of a route's rules. An empty value removes the field."""
    for name, value in rules.items():
        if value:
            fields[name] = value
        else:
            fields.popall(name, None)
