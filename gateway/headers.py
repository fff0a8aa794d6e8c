"""Which header fields cross a proxy (RFC 9110 section 7.6, RFC 7239)."""

from collections.abc import Iterable, Mapping

from multidict import CIMultiDict

HOP_BY_HOP = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
"""Fields that speak of one connection only, beside those that its Connection field names."""

VIA = "1.1 gateway"


def end_to_end(raw: Iterable[tuple[bytes, bytes]], connection: str | None) -> CIMultiDict[str]:
    """Gives the fields of a message that are to be forwarded, in their order and spelling.

    `connection` is the value of its Connection field. Bytes that are not UTF-8 are read as Latin-1.
    """
    dropped: frozenset[str] | set[str] = HOP_BY_HOP
    if connection:
        dropped = HOP_BY_HOP | {name.strip().lower() for name in connection.split(",")}
    fields: CIMultiDict[str] = CIMultiDict()
    for raw_name, raw_value in raw:
        name = raw_name.decode("ascii", "replace")
        if name.lower() not in dropped:
            fields.add(name, _text(raw_value))
    return fields


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def announce_client(fields: CIMultiDict[str], *, client: str, scheme: str, host: str) -> None:
    """Adds `Via`, `Forwarded` and `X-Forwarded-For`; `X-Forwarded-Proto` and `-Host` unless a proxy in front has set them."""
    via = fields.getall("Via", [])
    fields["Via"] = ", ".join([*via, VIA])
    node = f'"[{client}]"' if ":" in client else client
    quoted_host = host.replace("\\", "\\\\").replace('"', '\\"')
    forwarded = fields.getall("Forwarded", [])
    fields["Forwarded"] = ", ".join([*forwarded, f'for={node};host="{quoted_host}";proto={scheme}'])
    addresses = fields.getall("X-Forwarded-For", [])
    fields["X-Forwarded-For"] = ", ".join([*addresses, client])
    fields.setdefault("X-Forwarded-Proto", scheme)
    fields.setdefault("X-Forwarded-Host", host)


def apply_rules(fields: CIMultiDict[str], rules: Mapping[str, str]) -> None:
    """Sets the fields that a route's rules name; an empty value removes the field."""
    for name, value in rules.items():
        if value:
            fields[name] = value
        else:
            fields.popall(name, None)
