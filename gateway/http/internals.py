"""What the fast path uses of aiohttp beyond its documented interface, checked once when the process starts.

The other modules that import these names are loaded only if nothing here is unexpected; see `paths`.
"""

import asyncio
import functools
import importlib
import inspect
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

FUNCTIONS = {
    "aiohttp.client_proto:ResponseHandler.set_response_params": (
        "timer",
        "skip_payload",
        "read_until_eof",
        "auto_decompress",
        "read_timeout",
        "read_bufsize",
        "timeout_ceil_threshold",
        "max_line_size",
        "max_field_size",
        "max_headers",
    ),
    "aiohttp.client_proto:ResponseHandler.set_exception": ("exc", "exc_cause"),
    "aiohttp.connector:BaseConnector.connect": ("req", "traces", "timeout"),
    "aiohttp.connector:BaseConnector._get": ("key", "traces"),
    "aiohttp.connector:TCPConnector._wrap_create_connection": ("req", "timeout"),
    "aiohttp.connector:TCPConnector.clear_dns_cache": ("host", "port"),
    "aiohttp.helpers:ceil_timeout": ("delay", "ceil_threshold"),
    "aiohttp.http_writer:_serialize_headers": ("status_line", "headers"),
    "aiohttp.streams:StreamReader.feed_data": ("data",),
    "aiohttp.streams:StreamReader.on_eof": ("callback",),
    "aiohttp.streams:StreamReader.set_exception": ("exc",),
    "aiohttp.web_protocol:RequestHandler.finish_response": ("request", "resp", "start_time"),
    "aiohttp.web_protocol:RequestHandler.handle_error": ("request", "status", "exc", "message"),
}
"""Functions, and parameters that they must have."""

ATTRIBUTES = {
    "aiohttp:ClientResponse": ("_protocol",),
    "aiohttp:ClientSession": ("_max_field_size", "_max_headers", "_max_line_size", "_read_bufsize"),
    "aiohttp.client_proto:ResponseHandler": (
        "_buffer",
        "_connection_lost_called",
        "_exception",
        "_loop",
        "_parser",
        "_payload",
        "_reading_paused",
        "_reschedule_timeout",
        "_should_close",
        "_skip_payload",
        "_upgraded",
        "read",
        "start_timeout",
    ),
    "aiohttp.client_reqrep:ClientRequest": (),
    "aiohttp.client_reqrep:ConnectionKey": (),
    "aiohttp.connector:BaseConnector": ("_acquired", "_conns", "_factory", "_timeout_ceil_threshold"),
    "aiohttp.connector:Connection": (),
    "aiohttp.helpers:TimerNoop": (),
    "aiohttp.http:HttpProcessingError": (),
    "aiohttp.http:HttpRequestParser": (),
    "aiohttp.http:RawResponseMessage": (),
    "aiohttp.http_exceptions:LineTooLong": (),
    "aiohttp.http_parser:RawRequestMessage": (),
    "aiohttp.streams:EMPTY_PAYLOAD": (),
    "aiohttp.streams:StreamReader": (
        "_buffer",
        "_protocol",
        "_size",
        "begin_http_chunk_receiving",
        "end_http_chunk_receiving",
        "feed_eof",
        "total_bytes",
    ),
    "aiohttp.tracing:Trace": (),
    "aiohttp.web:BaseRequest": ("_cache", "_headers", "_message", "_protocol", "_rel_url", "_transport_peername", "_transport_sockname"),
    "aiohttp.web:Server": ("_connections",),
    "aiohttp.web_protocol:RequestHandler": (
        "_cache",
        "_close",
        "_keepalive_handle",
        "_lingering_time",
        "_loop",
        "_max_msg_queue_size",
        "_messages",
        "_parser",
        "_read_bufsize",
        "_request_count",
        "_upgraded",
        "_waiter",
        "max_field_size",
        "max_headers",
        "max_line_size",
        "start",
    ),
    "aiohttp.web_protocol:_ErrInfo": (),
}
"""Classes and objects, and attributes that they or their instances must have."""


@functools.cache
def unexpected() -> tuple[str, ...]:
    """Return what is not as the fast path needs it, one text for each; empty if it can be used. Takes some milliseconds, once."""
    return tuple(look())


def look() -> list[str]:
    """Return the same, checked anew."""
    faults = [*_other_functions(), *_missing_attributes()]
    if not faults:  # else these would only repeat what is missing
        faults += [*_failing(_server_queues_requests_and_errors), *_failing(_parser_feeds_the_payload)]
    return faults


def _find(place: str) -> Any:
    module, _, path = place.partition(":")
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    return found


def _other_functions() -> Iterator[str]:
    for place, expected in FUNCTIONS.items():
        try:
            parameters = inspect.signature(_find(place)).parameters
        except (ImportError, AttributeError, TypeError, ValueError):
            yield f"{place} is no function with a signature"
            continue
        if missing := [name for name in expected if name not in parameters]:
            yield f"{place} takes no {', '.join(missing)}"


def _missing_attributes() -> Iterator[str]:
    for place, names in ATTRIBUTES.items():
        try:
            kind = _find(place)
        except (ImportError, AttributeError):
            module, _, name = place.partition(":")
            yield f"{module} has no {name}"
            continue
        setters = [vars(base).get(setter) for base in getattr(kind, "__mro__", ()) for setter in ("__init__", "start")]
        assigned = {name for setter in setters if inspect.isfunction(setter) for name in setter.__code__.co_names}
        for name in names:
            if not hasattr(kind, name) and name not in assigned:
                yield f"instances of {place} have no {name}"


def _failing(check: Callable[[asyncio.AbstractEventLoop], str]) -> Iterator[str]:
    loop = asyncio.new_event_loop()
    try:
        fault = check(loop)
    except Exception as error:  # noqa: BLE001  # whatever another release raises is what is unexpected of it
        fault = f"{check.__name__.strip('_').replace('_', ' ')}: {type(error).__name__}: {error}"
    finally:
        loop.close()
    if fault:
        yield fault


def _server_queues_requests_and_errors(loop: asyncio.AbstractEventLoop) -> str:
    from aiohttp.web_protocol import RequestHandler, _ErrInfo

    manager: Any = SimpleNamespace(request_handler=None, request_factory=None)
    protocol = RequestHandler(manager, loop=loop, access_log=None)  # type: ignore[arg-type]  # as web.Server passes it on
    protocol.data_received(b"POST /a?b HTTP/1.1\r\nHost: c\r\nContent-Length: 2\r\n\r\nde")
    protocol.data_received(b"no HTTP\r\n\r\n")
    (message, body), (error, _) = protocol._messages
    wanted = "chunked compression headers method path raw_headers should_close upgrade url version"
    if missing := [name for name in wanted.split() if not hasattr(message, name)]:
        return f"the head of a request has no {', '.join(missing)}"
    if not isinstance(error, _ErrInfo) or {"status", "exc", "message"} - set(dir(error)):
        return "aiohttp's server does not queue an _ErrInfo for malformed bytes"
    if body.total_bytes != 2 or not body.is_eof():
        return "the body of a request is not fed by the parser"
    return ""


def _parser_feeds_the_payload(loop: asyncio.AbstractEventLoop) -> str:
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.streams import StreamReader

    calls: list[object] = []

    class Payload(StreamReader):
        __slots__ = ()

        def feed_data(self, data: bytes, size: int = 0) -> bool:
            calls.append(data)
            return False

        def begin_http_chunk_receiving(self) -> None:
            calls.append("begin")

        def end_http_chunk_receiving(self) -> None:
            calls.append("end")

        def feed_eof(self) -> None:
            calls.append("eof")
            super().feed_eof()

    protocol = ResponseHandler(loop)
    protocol.set_response_params(read_until_eof=True, auto_decompress=False)
    protocol.data_received(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    [(head, payload), *_] = [entry[0] for entry in protocol._buffer]
    if not {"code", "reason", "headers", "raw_headers", "chunked"} <= set(dir(head)):
        return "the head of an answer has other attributes"
    payload.__class__ = Payload
    protocol._parser.feed_data(b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n")  # type: ignore[union-attr]  # it has one for an answer
    if [call for call in calls if call not in ("begin", "end")] != [b"ab", b"c", "eof"] or "begin" not in calls or "end" not in calls:
        return f"the parser of answers does not feed a payload as expected: {calls}"
    return ""
