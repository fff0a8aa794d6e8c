"""Logs: one JSON object a line on standard output, from our own code and from libraries."""

import json
import logging
import sys
import time
from functools import lru_cache

import structlog

from .request_ids import current_request_id

_encode = json.JSONEncoder(default=str).encode  # json.dumps would make an encoder for each call, which takes longer than encoding


def configure_logs(service: str, level: str = "info", **facts: object) -> None:
    """Send the records of structlog and the standard library's loggers to stdout as JSON with `time`, `level`, `service` and `event`.

    `level` is one of debug, info, warning, error; every line contains `facts`.
    Library access logs stay off: services log a stream once, when it ends.
    """

    def render(logger: object, method: str, event: structlog.typing.EventDict) -> str:
        if "exc_info" in event:
            event = structlog.processors.format_exc_info(logger, method, event)
        if request_id := current_request_id.get():
            event.setdefault("request_id", request_id)
        return _encode({"time": _now(), "level": method, "service": service, **facts, "event": event.pop("event"), **event})

    structlog.configure(
        processors=[render],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render])
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def _now() -> str:
    at = time.time()
    return f"{_second(int(at))}.{int(at % 1 * 1000):03}Z"


@lru_cache(maxsize=1)
def _second(at: int) -> str:
    """Return a second of Unix time in ISO 8601; cached, because a busy service writes many lines in one second."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))
