"""How a source is named where people can read it."""

import re
from urllib.parse import urlsplit

_URL = re.compile(r"https?://[^\s'\"]+", re.IGNORECASE)


def strip_secrets(url: str) -> str:
    """Gives `url` without credentials, query and fragment, which may hold secrets."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "(a URL that cannot be read)"
    return f"{parts.scheme}://{host}{parts.path}" if parts.scheme else f"{host}{parts.path}"


def hide_secrets(text: str) -> str:
    """Gives `text`, an error's message perhaps, with each URL in it as `strip_secrets` leaves it."""
    return _URL.sub(lambda url: strip_secrets(url[0]), text)
