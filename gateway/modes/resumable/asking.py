"""Send the upstream request for a stream that may be kept."""

import asyncio

import aiohttp
import structlog
from multidict import CIMultiDict

from ...access.exchange import Exchange
from ...http.asking import UpstreamAnswer, UpstreamClient
from ...http.deadline import Deadline
from ..body import RequestBody
from .opening import Opening

log = structlog.get_logger()


async def ask_for_stream(
    client: UpstreamClient,
    exchange: Exchange,
    body: RequestBody,
    fields: CIMultiDict[str],
    timeout: aiohttp.ClientTimeout,
    opening: Opening,
) -> UpstreamAnswer:
    """Return the answer when its head has arrived. `opening` gets the digest of the body as soon as it is known."""
    route = exchange.route
    with Deadline() as first_byte:

        def wait_for_answer() -> None:
            opening.set_body_digest(body.digest)
            if route.first_byte_timeout_seconds:
                first_byte.set(asyncio.get_running_loop(), route.first_byte_timeout_seconds)

        try:
            data = body.open(wait_for_answer, first_byte.fire)
            answer = await client.ask(
                exchange.method, route.upstream, exchange.target, fields=fields, data=data, timeout=timeout, tls=route.tls
            )
        except BaseException:
            body.end()
            raise
    body.answered()
    if body.received_bytes > route.max_kept_body_bytes:
        opening.keeps = False
        note_unkept(exchange)
    return answer


def note_unkept(exchange: Exchange) -> None:
    """Log that the answer is not kept, because the body of its request is too large."""
    route = exchange.route
    facts = {"route": route.path, "path": exchange.shown_path, "request_id": exchange.request_id, "limit": route.max_kept_body_bytes}
    log.info("answer is not kept: the body of its request is too large", **facts)
