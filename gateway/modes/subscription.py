"""The downstream response of a subscriber to a fan-out."""

import random
from collections.abc import Callable

from aiohttp import web
from multidict import CIMultiDict

from ..access.budget import Budget
from ..access.exchange import Exchange
from ..access.throttle import begin_writing, open_throttle
from ..http.answer import AnswerHead
from ..http.connection import connection_of
from ..http.flushing import end_unfinished
from ..http.headers import is_delimited
from ..http.incoming import Incoming
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

    After an error event the connection of a kept answer is aborted: client libraries take a clean end for success.

    Unsent data of a slow connection counts in the budget `unsent`.

    Callers should not keep references to `fields` or `begin` while they wait: there may be ten thousand of them.
    """
    connection = connection_of(request)
    response = AnswerHead(headers=fields)
    await response.prepare(request)
    sink = response.open_sink()
    connection.prepare_for_stream()
    expires = _expiry(exchange.route.max_connection_seconds, wheel)
    throttle = open_throttle(connection, sink, exchange.allowance)
    subscriber = Subscriber(
        throttle or sink,
        wheel,
        chunked=response.chunked_here,
        takes_retry=exchange.wants_retry,
        unsent=unsent,
        owner=exchange.owner,
        resumes=bool(read_last_event_id(request.headers, exchange.target)),
        expires=expires,
    )
    if begin_writing(connection, subscriber, throttle):
        subscriber.pause()
    exchange.status, exchange.event_stream, exchange.relay = 200, True, subscriber
    exchange.ui_messages = UI_MESSAGES in fields
    begin(subscriber)
    delimited = is_delimited(response.headers)
    response.headers.clear()
    assert isinstance(request, Incoming)
    request.release_memory()
    del begin, fields, sink
    try:
        await subscriber.ended()
    finally:
        subscriber.end(LEFT)  # no effect unless the wait was cancelled
        connection.writing = None
        if throttle is not None:
            throttle.close()
    tells = subscriber.verdict == CUT and exchange.route.on_upstream_loss == "error-event"
    if tells:
        subscriber.send_error(ui_messages=exchange.ui_messages)
    if subscriber.verdict != COMPLETE and not (tells and exchange.route.mode == "shared"):  # a clean end of a kept answer means success
        end_unfinished(request, response, delimited=delimited)
    return response


def _expiry(seconds: float, wheel: TimerWheel) -> int:
    return wheel.now + wheel.ticks(seconds * random.uniform(1 - _EXPIRY_SPREAD, 1 + _EXPIRY_SPREAD)) if seconds else 0
