"""Heads of responses that the gateway writes without aiohttp, and a buffer for complete bodies."""

import contextlib
import io

from aiohttp import web
from aiohttp.http_writer import StreamWriter
from multidict import istr

_CONTENT_TYPE = istr("Content-Type")


class ResponseHead(web.StreamResponse):
    """A response whose head the gateway sends: at once, or in one write with a complete body.

    It has the media type of the upstream's answer, or none.
    """

    _send_headers_immediately = False

    async def _prepare_headers(self) -> None:
        has_media_type = _CONTENT_TYPE in self._headers
        await super()._prepare_headers()
        if not has_media_type:
            self._headers.popall(_CONTENT_TYPE, None)  # aiohttp adds a default


class WholeBody(io.BytesIO):
    """A sink that collects a complete body."""

    def is_closing(self) -> bool:
        """Return False: the buffer never closes."""
        return False


def send_head(writer: StreamWriter) -> None:
    """Send the head of a response at once. Ignore a lost connection, which the next write reports."""
    with contextlib.suppress(ConnectionResetError):
        writer.send_headers()
