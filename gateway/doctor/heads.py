"""Compares the heads of two answers, field by field."""

from collections.abc import Iterator

from .findings import Finding, Severity
from .observation import Head
from .quoting import Quote

_OF_THE_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "date", "proxy-connection", "te", "trailer", "upgrade", "alt-svc"}
"""Each connection has its own."""
_MATTERS: dict[str, tuple[Severity, str]] = {
    "content-type": ("problem", "clients and proxies no longer know what it is"),
    "content-encoding": ("problem", "what stands between compresses, and holds bytes back for it"),
    "content-length": ("problem", "what stands between collected the whole answer first"),
    "cache-control": ("warning", "caches and buffers behind it are told something else"),
    "x-accel-buffering": ("note", "an nginx further on is not told to stop buffering; nginx itself takes the field away"),
}


def compare_heads(direct: Head, through: Head, quote: Quote) -> Iterator[Finding]:
    """Says what became of status, version and fields."""
    if direct.status != through.status:
        shown = f"{direct.status} became {through.status}"
        yield Finding("status through", "problem", shown, "what stands between answers something else", "look into its log")
    if direct.version != through.version:
        shown = f"HTTP/{direct.version[0]}.{direct.version[1]} became HTTP/{through.version[0]}.{through.version[1]}"
        yield Finding("version through", "note", shown, "the framing of the answer is another", "nothing, if it is not older than 1.1")
    others = []
    for name in dict.fromkeys(key.decode("latin-1").lower() for key, _ in (*direct.fields, *through.fields)):
        before, after = direct.get(name), through.get(name)
        if before == after or name in _OF_THE_CONNECTION:
            continue
        change = f"{quote(name)}: {_value(before, quote)} became {_value(after, quote)}"
        if name in _MATTERS and not (name == "x-accel-buffering" and (after or "").lower() == "no"):
            severity, means = _MATTERS[name]
            yield Finding("header through", severity, change, means, "look for this field in its configuration")
        else:
            others.append(change)
    if others:
        yield Finding("header through", "ok", "; ".join(others))


def _value(value: str | None, quote: Quote) -> str:
    return "nothing" if value is None else quote(value, 60) if value else "an empty value"
