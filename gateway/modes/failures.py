"""Answer clients whose upstream cannot be reached."""

import aiohttp
import structlog
from aiohttp import web

from ..access.exchange import Exchange
from ..http.problems import problem, retry_later
from ..http.upstream_errors import Drained, explain

log = structlog.get_logger()


def failed(exchange: Exchange, error: Exception) -> web.Response:
    """Return the answer to a client whose upstream request failed."""
    if isinstance(error, Drained):
        exchange.refuse(503, "draining")
        return retry_later() if exchange.wants_retry else problem(503, str(error), code="draining")
    late = isinstance(error, TimeoutError)
    if late:
        detail = f"timed out {'connecting' if isinstance(error, aiohttp.ServerTimeoutError) else 'waiting for the head of its answer'}"
    else:
        detail = explain(error)
    return no_answer(exchange, detail, f": {detail}", late=late)


def no_answer(exchange: Exchange, detail: str, told: str, *, late: bool) -> web.Response:
    """Log that an upstream did not answer, or answered too late, and return the client's answer.

    `told` is its end: clients must not see the upstream's address.
    """
    if late:
        exchange.refuse(504, "upstream-timeout")
    else:
        exchange.refuse(502, "upstream-unreachable")
    route = exchange.route
    log.warning("no answer", **exchange.facts(), upstream=route.upstream, detail=detail)
    return problem(exchange.status, f"the upstream of route {route.path}{told}", code=exchange.refused or "")
