"""The bearer keys of publishers."""

import hashlib
import hmac
import re
from collections.abc import Iterable
from http import HTTPStatus

from .problems import Problem

_KEY = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""The token after `Bearer` (RFC 6750, section 2.1)."""

_BEARER = re.compile(r"bearer +(\S+) *", re.IGNORECASE)


class PublishKeys:
    """Authorize publishers. Only digests of the keys are kept, so that no key can be printed or logged."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._digests = tuple(_digest(key) for key in keys)

    def __repr__(self) -> str:
        return f"<PublishKeys {len(self._digests)}>"

    @classmethod
    def parse(cls, text: str) -> "PublishKeys":
        """Parse keys separated by commas; an empty text lets any client publish. Raises ValueError, without showing a key."""
        keys = [part.strip() for part in text.split(",")] if text.strip() else []
        for number, key in enumerate(keys, 1):
            if not _KEY.fullmatch(key):
                raise ValueError(
                    f"key {number} of {len(keys)} is empty or has a character other than letters, digits and -._~+/ (= at its end)"
                )
        return cls(keys)

    def check(self, authorization: str | None) -> None:
        """Raise Problem unless the value of an `Authorization` field permits publishing: 401 for none, 403 for a wrong key."""
        if not self._digests:
            return
        found = _BEARER.fullmatch(authorization or "")
        if not found:
            detail = "publishing needs a key: send `Authorization: Bearer KEY` with one of PRODUCER_PUBLISH_KEYS"
            got = "no Authorization" if authorization is None else "an Authorization other than Bearer"
            challenge = {"WWW-Authenticate": 'Bearer realm="publish"'}
            raise Problem(HTTPStatus.UNAUTHORIZED, detail, headers=challenge, got=got, allowed="Bearer")
        shown = _digest(found[1])
        # Each digest is compared, all of one length: the time reveals neither which key is similar nor how long the keys are.
        if not sum(hmac.compare_digest(shown, known) for known in self._digests):
            challenge = {"WWW-Authenticate": 'Bearer realm="publish", error="invalid_token"'}
            detail = "the key is not one of PRODUCER_PUBLISH_KEYS"
            raise Problem(HTTPStatus.FORBIDDEN, detail, headers=challenge, got="another key", allowed="one of PRODUCER_PUBLISH_KEYS")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
