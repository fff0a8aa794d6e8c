"""Compare the heads of two answers, field by field."""

from collections.abc import Iterator

from .findings import Finding, Severity
from .observation import Head
from .quoting import Quote

_OF_THE_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "date", "proxy-connection", "te", "trailer", "upgrade", "alt-svc"}
"""Fields that differ for each connection."""
_MATTERS: dict[str, tuple[Severity, str]] = {
    "content-type": ("problem", "clients and proxies no longer recognize the stream"),
    "content-encoding": ("problem", "a proxy compresses the stream, and buffers bytes to do so"),
    "content-length": ("problem", "a proxy buffered the whole response first"),
    "cache-control": ("warning", "caches and buffers downstream get other instructions"),
    "x-accel-buffering": ("note", "an nginx downstream is not told to stop buffering; nginx itself removes the field"),
}


def compare_heads(direct: Head, through: Head, quote: Quote) -> Iterator[Finding]:
    """Compare status, version and fields."""
    if direct.status != through.status:
        shown = f"{direct.status} became {through.status}"
        yield Finding("status through", "problem", shown, "a proxy replaced the answer", "check the proxy's log")
    if direct.version != through.version:
        shown = f"HTTP/{direct.version[0]}.{direct.version[1]} became HTTP/{through.version[0]}.{through.version[1]}"
        yield Finding("version through", "note", shown, "the response is framed differently", "nothing, unless it is older than 1.1")
    others = []
    for name in dict.fromkeys(key.decode("latin-1").lower() for key, _ in (*direct.fields, *through.fields)):
        before, after = direct.get(name), through.get(name)
        if before == after or name in _OF_THE_CONNECTION:
            continue
        change = f"{quote(name)}: {_value(before, quote)} became {_value(after, quote)}"
        if name in _MATTERS and not (name == "x-accel-buffering" and (after or "").lower() == "no"):
            severity, means = _MATTERS[name]
            yield Finding("header through", severity, change, means, "look for this field in the proxy's configuration")
        else:
            others.append(change)
    if others:
        yield Finding("header through", "ok", "; ".join(others))


def _value(value: str | None, quote: Quote) -> str:
    return "nothing" if value is None else quote(value, 60) if value else "an empty value"
