"""The name of a source in logs and messages."""

import re
from urllib.parse import urlsplit

_URL = re.compile(r"https?://[^\s'\"]+", re.IGNORECASE)


def strip_secrets(url: str) -> str:
    """Return `url` without credentials, query and fragment, which may hold secrets."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "(a URL that cannot be read)"
    return f"{parts.scheme}://{host}{parts.path}" if parts.scheme else f"{host}{parts.path}"


def hide_secrets(text: str) -> str:
    """Return `text`, such as an error message, with `strip_secrets` applied to each URL in it."""
    return _URL.sub(lambda url: strip_secrets(url[0]), text)
