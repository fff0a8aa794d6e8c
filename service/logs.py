"""Logs: one JSON object a line on standard output, for our own facts and for what libraries report."""

import logging
import sys

import structlog


def configure_logs(service: str, level: str = "info") -> None:
    """Sends structlog and the standard library's loggers alike to stdout as JSON with `time`, `level`, `service` and `event`.

    `level` is one of debug, info, warning, error. Library access logs stay off: services log a stream once when it ends.
    """

    def lead(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        return {"time": event.pop("time"), "level": event.pop("level"), "service": service, "event": event.pop("event"), **event}

    render: list[structlog.typing.Processor] = [lead, structlog.processors.JSONRenderer()]
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, *render],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
