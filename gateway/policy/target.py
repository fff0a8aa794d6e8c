"""Handle request targets (RFC 9112 section 3.2)."""

import re
from collections.abc import Iterator
from urllib.parse import unquote

from yarl import URL

from eventstream.request import keep_mark

_ODD = re.compile(r"[%\\]|/[/.]|[^\x00-\x7f]")
_SURROGATE = re.compile("[\\ud800-\\udfff]")
_NOT_ASCII = re.compile(rb"[\x80-\xff]")


def split_target(target: str) -> tuple[str, str]:
    """Return the authority, empty unless the target is in absolute form, and the path with the query."""
    if target.startswith("/") or not target.lower().startswith(("http://", "https://")):
        return "", target
    rest = target.partition("://")[2]
    end = min((at for at in map(rest.find, "/?#") if at >= 0), default=len(rest))
    path = rest[end:]
    return rest[:end], path if path.startswith("/") else "/" + path


def to_ascii(line: bytes) -> bytes:
    """Return a request's first line with non-ASCII bytes percent-encoded, because aiohttp's parser rejects them."""
    return _NOT_ASCII.sub(lambda match: b"%%%02X" % match[0][0], line)


def is_utf8(target: str) -> bool:
    """Return whether `target` is UTF-8. aiohttp keeps other bytes as surrogates."""
    return not _SURROGATE.search(target)


def restore(target: str, line: bytes) -> str:
    """Return the target in `line` if `target` is its ASCII form, else `target`."""
    _, _, rest = line.partition(b" ")
    raw, _, _ = rest.partition(b" ")
    return raw.decode("utf-8", "surrogateescape") if to_ascii(raw).decode() == target else target


def url_of(upstream: str, target: str) -> URL:
    """Return the URL of `target` at an upstream, byte for byte."""
    url = upstream + target
    return keep_mark(url, URL(url, encoded=True))


def readings(path: str) -> Iterator[str]:
    """Yield the paths as which an upstream may read `path`: percent-decoded or not, dots resolved or not, slashes merged or not.

    Yields nothing for an unambiguous path. A backslash counts as a slash and `..;x` as `..`, as in some servers.
    """
    if not _ODD.search(path):
        return
    decoded = unquote(path, "latin-1")
    yield decoded
    if not path.isascii():
        encoded = to_ascii(path.encode("utf-8", "surrogateescape")).decode()
        yield encoded
        yield re.sub("%[0-9A-F]{2}", lambda match: match[0].lower(), encoded)
    for text in (path, decoded):
        for merging in (False, True):
            yield _resolve(text.replace("\\", "/"), merging=merging)


def _resolve(path: str, *, merging: bool) -> str:
    """Return `path` without dot segments (RFC 3986 section 5.2.4), and with `merging` also without empty ones."""
    resolved: list[str] = []
    *folders, last = path.split("/")[1:]
    for segment in (*folders, last):
        dots = segment.partition(";")[0]
        if dots == "..":
            del resolved[-1:]
        elif dots != "." and (segment or not merging):
            resolved.append(segment)
    if last.partition(";")[0] in ("", ".", "..") and (merging or last):
        resolved.append("")  # a path that ends in a slash or dots is a folder
    return "/" + "/".join(resolved)
