"""Quote a peer's words without secrets: credentials and query values stay hidden, also when the peer repeats them."""

import base64
import binascii
import re
from collections.abc import Iterable
from urllib.parse import unquote, unquote_plus

from yarl import URL

HARMLESS = {"accept", "accept-encoding", "accept-language", "cache-control", "content-type", "last-event-id", "origin", "user-agent"}
"""Header fields that hold no credentials."""
_SCHEMES = {"basic", "bearer", "digest", "token", "negotiate"}
_LEAST_PART = 4
"""Shorter secrets are hidden only as whole words: hiding every `5` of a report would not protect `limit=5`."""
_HIDDEN = "***"


class Quote:
    """Quote a peer's words for the report: secrets hidden, control characters escaped, length limited."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        found = sorted({secret for secret in secrets if secret}, key=len, reverse=True)
        parts = [_pattern(secret.encode("utf-8", "surrogateescape")) for secret in found]
        self._secrets = re.compile(b"|".join(parts)) if parts else None

    def __call__(self, words: str | bytes, limit: int = 80) -> str:
        raw = words.encode("utf-8", "surrogateescape") if isinstance(words, str) else words
        if self._secrets is not None:
            raw = self._secrets.sub(_HIDDEN.encode(), raw)
        text = "".join(_visible(character) for character in raw.decode("utf-8", "backslashreplace"))
        return text if len(text) <= limit else text[: limit - 1] + "…"

    def mask(self, data: bytes) -> bytes:
        """Return `data` with each byte of a secret replaced by `*`. Mask before slicing, or part of a secret would show."""
        return data if self._secrets is None else self._secrets.sub(lambda found: b"*" * len(found[0]), data)


def _pattern(secret: bytes) -> bytes:
    escaped = re.escape(secret)
    return escaped if len(secret) >= _LEAST_PART else rb"(?<![\w.])" + escaped + rb"(?![\w.])"


def _visible(character: str) -> str:
    return character if character.isprintable() else repr(character)[1:-1]


def shown_url(url: URL) -> str:
    """Return a URL without user name, password, fragment and query values."""
    names = [part.partition("=") for part in url.raw_query_string.split("&") if part]
    query = "&".join(f"{name}={'…' if value else ''}" if equals else "…" for name, equals, value in names)
    return str(url.with_user(None).with_query(None).with_fragment(None)) + (f"?{query}" if query else "")


def secrets_of_url(url: URL) -> set[str]:
    """Return the secrets of a URL: user name, password and query values, each raw and decoded."""
    secrets = {url.raw_user or "", url.raw_password or ""}
    for part in url.raw_query_string.split("&"):
        name, equals, value = part.partition("=")
        secrets.add(value if equals else name)
    return secrets | {unquote(secret) for secret in secrets} | {unquote_plus(secret) for secret in secrets}


def secrets_of_headers(headers: Iterable[tuple[str, str]]) -> set[str]:
    """Return the secrets of header fields: the values, their parts, and user name and password of Basic authentication."""
    secrets: set[str] = set()
    for name, value in headers:
        if name.lower() in HARMLESS:
            continue
        parts = {part.strip("\"'") for part in re.split(r"[\s;,]+|(?<=[^=])=(?=[^=])", value)}
        secrets |= {part for part in parts if len(part) >= _LEAST_PART and part.lower() not in _SCHEMES} | {value}
        scheme, _, token = value.partition(" ")
        if scheme.lower() == "basic":
            secrets |= _of_basic(token)
    return secrets


def _of_basic(token: str) -> set[str]:
    try:
        user, _, password = base64.b64decode(token, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return set()  # the raw value is hidden anyway
    return {user, password, f"{user}:{password}"}
