"""Responses that the gateway writes past aiohttp: their heads, and where a body is gathered that is already here."""

import contextlib
import io

from aiohttp import web
from aiohttp.http_writer import StreamWriter
from multidict import istr

_CONTENT_TYPE = istr("Content-Type")


class ResponseHead(web.StreamResponse):
    """A response whose head leaves when the gateway says so: at once, or in one write with a body that is already here.

    It has the media type of the upstream's answer, or none.
    """

    _send_headers_immediately = False

    async def _prepare_headers(self) -> None:
        has_media_type = _CONTENT_TYPE in self._headers
        await super()._prepare_headers()
        if not has_media_type:
            self._headers.popall(_CONTENT_TYPE, None)  # aiohttp invents one


class WholeBody(io.BytesIO):
    """Gathers a body that is already here, where a transport would send it."""

    def is_closing(self) -> bool:
        """False: it always takes more."""
        return False


def send_head(writer: StreamWriter) -> None:
    """Sends the head of a response at once; nothing when the client has just left, which whoever writes next will hear of."""
    with contextlib.suppress(ConnectionResetError):
        writer.send_headers()
