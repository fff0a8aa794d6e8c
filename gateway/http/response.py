"""Heads of responses that the gateway writes without aiohttp."""

import contextlib

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_writer import StreamWriter
from multidict import istr

from .connection import AnswerHead, Sink

_CONTENT_TYPE = istr("Content-Type")


class ResponseHead(AnswerHead):
    """A response whose head the gateway sends: at once, or in one write with a complete body.

    It has the media type of the upstream's answer, or none. Its sink is the transport.
    """

    _send_headers_immediately = False
    _writer: StreamWriter

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        writer = await super().prepare(request)
        if isinstance(writer, StreamWriter):
            self._writer = writer
            self.chunked_here = writer.chunked
        return writer

    async def _prepare_headers(self) -> None:
        has_media_type = _CONTENT_TYPE in self._headers
        await super()._prepare_headers()
        if not has_media_type:
            self._headers.popall(_CONTENT_TYPE, None)  # aiohttp adds a default

    def open_sink(self, request: web.BaseRequest) -> Sink:
        self.send_head()
        assert request.transport is not None
        return request.transport

    def send_head(self) -> None:
        """Send the head at once. Ignore a lost connection, which the next write reports."""
        with contextlib.suppress(ConnectionResetError):
            self._writer.send_headers()
