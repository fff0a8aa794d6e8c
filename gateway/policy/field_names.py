"""Names of HTTP fields and methods."""

import re

FIELD_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
"""Expression for a token, such as the name of a field (RFC 9110 section 5.6.2)."""

_NAME = re.compile(FIELD_NAME)


def is_name(text: str) -> bool:
    """Whether this is a token."""
    return _NAME.fullmatch(text) is not None


def check_names(names: tuple[str, ...], what: str) -> tuple[str, ...]:
    """Return `names`. Raises ValueError if one is no token; `what` says in the message what it should be."""
    for name in names:
        if not is_name(name):
            raise ValueError(f"{name!r} is not a {what}")
    return names
