"""The downstream response of a subscriber to a fan-out."""

import random
from collections.abc import Callable

from aiohttp import web
from aiohttp.http_writer import StreamWriter
from multidict import CIMultiDict

from ..access.budget import Budget
from ..access.exchange import Exchange
from ..access.throttle import begin_writing, open_throttle
from ..http.downstream import occupy, release
from ..http.flushing import end_unfinished
from ..http.incoming import Incoming
from ..http.response import ResponseHead, send_head
from ..policy.last_event_id import read_last_event_id
from ..streams.error_event import UI_MESSAGES
from ..streams.relay import COMPLETE, CUT, LEFT
from ..streams.subscriber import Subscriber
from ..streams.wheel import TimerWheel

Begin = Callable[[Subscriber], None]
"""A function that adds a subscriber to its fan-out, at its cursor."""

_EXPIRY_SPREAD = 0.1


async def send_stream(
    request: web.BaseRequest, exchange: Exchange, fields: CIMultiDict[str], begin: Begin, wheel: TimerWheel, unsent: Budget
) -> web.StreamResponse:
    """Send an event stream until it has ended, and return its response. The caller writes the end of a complete one.

    Unsent data of a slow connection counts in the budget `unsent`.

    Callers should not keep references to `fields` or `begin` while they wait: there may be ten thousand of them.
    """
    response = ResponseHead(status=200, headers=fields)
    writer = await response.prepare(request)
    assert isinstance(writer, StreamWriter)
    send_head(writer)
    protocol = occupy(request)
    assert protocol.transport is not None
    expires = _expiry(exchange.route.max_connection_seconds, wheel)
    throttle = open_throttle(protocol, exchange.allowance)
    transport = throttle or protocol.transport
    subscriber = Subscriber(
        transport,
        wheel,
        chunked=writer.chunked,
        takes_retry=exchange.wants_retry,
        unsent=unsent,
        owner=exchange.counted_as,
        resumes=bool(read_last_event_id(request.headers, exchange.target)),
        expires=expires,
    )
    if begin_writing(protocol, subscriber, throttle):
        subscriber.pause()
    exchange.status, exchange.event_stream, exchange.relay = 200, True, subscriber
    exchange.ui_messages = UI_MESSAGES in fields
    begin(subscriber)
    response.headers.clear()
    assert isinstance(request, Incoming)
    request.let_go()
    del begin, fields, writer, protocol, transport
    try:
        await subscriber.ended()
    finally:
        subscriber.end(LEFT)  # no effect unless the wait was cancelled
        release(request)
        if throttle is not None:
            throttle.close()
    if subscriber.verdict == CUT and exchange.route.on_upstream_loss == "error-event":
        subscriber.tell_error(ui_messages=exchange.ui_messages)
    elif subscriber.verdict != COMPLETE:
        end_unfinished(request, response, delimited=subscriber.chunked)
    return response


def _expiry(seconds: float, wheel: TimerWheel) -> int:
    return wheel.now + wheel.ticks(seconds * random.uniform(1 - _EXPIRY_SPREAD, 1 + _EXPIRY_SPREAD)) if seconds else 0
