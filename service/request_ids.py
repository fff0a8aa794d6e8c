"""The ID of a request in the logs, errors and answers of every service that handles it."""

import os
import re
from contextvars import ContextVar

_SENSIBLE = re.compile(r"[A-Za-z0-9._~+/=:@-]{1,128}")

REQUEST_ID = "X-Request-Id"

current_request_id: ContextVar[str] = ContextVar("current_request_id", default="")
"""The ID of the request that the running task answers, for log lines; empty in a service that adds it to each line itself."""


def new_request_id() -> str:
    """Return a unique request ID: 32 hexadecimal digits."""
    return os.urandom(16).hex()


def keep_or_make(given: str) -> str:
    """Return the ID of a request whose `X-Request-Id` is `given`: that one, or a new one if it is missing or could corrupt a log line."""
    return given if given and _SENSIBLE.fullmatch(given) else new_request_id()
