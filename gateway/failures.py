"""What a client is told when its upstream could not be asked."""

import os

import aiohttp
import structlog
from aiohttp import web

from .exchange import Exchange
from .problems import come_back_later, problem
from .upstream_client import HeadTooLarge
from .upstream_connector import Drained

log = structlog.get_logger()


def failed(exchange: Exchange, error: Exception) -> web.Response:
    """Return the answer to the client when the upstream could not be asked."""
    if isinstance(error, Drained):
        exchange.refuse(503, "draining")
        return come_back_later() if exchange.wants_retry else problem(503, str(error))
    if isinstance(error, TimeoutError):
        what = "connecting" if isinstance(error, aiohttp.ServerTimeoutError) else "waiting for the head of its answer"
        detail = f"time-out {what}"
        exchange.refuse(504, "upstream-timeout")
    else:
        detail = _explain(error)
        exchange.refuse(502, "upstream-unreachable")
    route = exchange.route
    log.warning("no answer", **exchange.facts(), upstream=route.upstream, detail=detail)
    return problem(exchange.status, f"the upstream of route {route.path}: {detail}")  # its address is not for everybody


def _explain(error: Exception) -> str:
    match error:
        case aiohttp.ClientConnectorError(os_error=cause):
            return f"cannot connect: {os.strerror(cause.errno) if cause.errno else cause}"
        case HeadTooLarge():
            return str(error)
        case aiohttp.ServerDisconnectedError():
            return "closed the connection without an answer"
        case aiohttp.ClientOSError():
            return f"connection lost: {error.strerror or error}"
        case _:
            return "its answer is not HTTP"
