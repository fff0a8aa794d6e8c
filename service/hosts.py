"""The valid values of the field `Host`."""

import re

_HOST = re.compile(r"([A-Za-z0-9._~!$&'()*+;=%-]*|\[[0-9A-Fa-f:.]+\])(:[0-9]*)?")  # RFC 3986 section 3.2.2, without the comma of lists


def is_host(value: str) -> bool:
    """Whether this is a name or an address, with or without a port, or empty (RFC 9110 section 7.2)."""
    return _HOST.fullmatch(value) is not None
