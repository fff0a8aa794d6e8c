"""What a request is called in the logs, errors and answers of all that have to do with it."""

import os
import re
from contextvars import ContextVar

_SENSIBLE = re.compile(r"[A-Za-z0-9._~+/=:@-]{1,128}")

REQUEST_ID = "X-Request-Id"

current_request_id: ContextVar[str] = ContextVar("current_request_id", default="")
"""The id of the request that the running task answers, for log lines; a service that names it in each line itself leaves it empty."""


def new_request_id() -> str:
    """Gives an id that no other request has: 32 hexadecimal digits."""
    return os.urandom(16).hex()


def keep_or_make(given: str) -> str:
    """Gives the id of a request whose `X-Request-Id` is `given`: that, unless it is missing or could spoil a log line."""
    return given if given and _SENSIBLE.fullmatch(given) else new_request_id()
