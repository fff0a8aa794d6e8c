"""Answer clients whose upstream cannot be reached."""

import aiohttp
import structlog
from aiohttp import web

from ..access.exchange import Exchange
from ..http.problems import come_back_later, problem
from ..http.upstream_errors import Drained, explain

log = structlog.get_logger()


def failed(exchange: Exchange, error: Exception) -> web.Response:
    """Return the answer to a client whose upstream request failed."""
    if isinstance(error, Drained):
        exchange.refuse(503, "draining")
        return come_back_later() if exchange.wants_retry else problem(503, str(error), code="draining")
    if isinstance(error, TimeoutError):
        what = "connecting" if isinstance(error, aiohttp.ServerTimeoutError) else "waiting for the head of its answer"
        detail = f"timed out {what}"
        exchange.refuse(504, "upstream-timeout")
    else:
        detail = explain(error)
        exchange.refuse(502, "upstream-unreachable")
    route = exchange.route
    log.warning("no answer", **exchange.facts(), upstream=route.upstream, detail=detail)
    detail = f"the upstream of route {route.path}: {detail}"  # without the upstream's address, which clients must not see
    return problem(exchange.status, detail, code=exchange.refused or "")
