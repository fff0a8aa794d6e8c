"""Web origins, as browsers send them in `Origin` and as operators write them into an environment variable."""

import json
import re

ANY_ORIGIN = "*"

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[^\s/?#@:\[\]A-Z]+)(:[0-9]{1,5})?")


def parse_origins(text: str) -> tuple[str, ...]:
    """Return the origins in `text`: a JSON list of them, or separated by commas; `*` allows any and must stand alone.

    Raises ValueError for values that no browser sends: a path, a trailing slash, capital letters, no scheme.
    """
    origins = _parse_list(text) if text.lstrip().startswith("[") else [part.strip() for part in text.split(",")]
    for origin in origins:
        if origin != ANY_ORIGIN and not _ORIGIN.fullmatch(origin):
            raise ValueError(f"{origin!r} is not an origin; write scheme://host or scheme://host:port, in lower case, without a path")
    if ANY_ORIGIN in origins and len(origins) > 1:
        raise ValueError(f"{ANY_ORIGIN} already allows any origin and must stand alone, got {', '.join(origins)}")
    return tuple(origins)


def _parse_list(text: str) -> list[str]:
    try:
        origins = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"begins like a JSON list but is not valid JSON: {error}") from error
    if not isinstance(origins, list) or not all(isinstance(origin, str) for origin in origins):
        raise ValueError("must be a JSON list of strings")
    return origins
