"""Reject ambiguous requests that aiohttp's parser accepts, and describe all malformed requests."""

import logging

from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.http_exceptions import HttpProcessingError, InvalidHeader, InvalidURLError, LineTooLong
from multidict import istr

from service.hosts import is_host

from ..policy.refusal import Refusal
from ..policy.trusted_proxies import FORWARDING_FIELDS
from .incoming import Incoming

_HOST_FIELD, _TRANSFER_ENCODING = istr("Host"), istr("Transfer-Encoding")
_TOO_MANY = "Too many"
BAD_BODY = Refusal(400, "malformed", "the body does not match its head, or its chunks are not valid")
_LOOKALIKES = frozenset(
    ("authorization", "connection", "content-length", "cookie", "host", "transfer-encoding", *(name.lower() for name in FORWARDING_FIELDS))
)
"""Fields that servers with CGI variables (WSGI, PHP) also read when spelled with `_` in place of `-`."""


def find_fault(request: Incoming, authority: str) -> Refusal | None:
    """Return why a request must not be forwarded, None if its head is unambiguous. `authority` is that of its target."""
    version, headers = request.version, request.headers
    if version not in (HttpVersion11, HttpVersion10):
        request.answer_as_http_10()
        return Refusal(505, "malformed", f"HTTP/{version.major}.{version.minor} is not supported; use HTTP/1.1 or 1.0")
    coding = headers.get(_TRANSFER_ENCODING)
    if coding is not None:
        if version == HttpVersion10:
            return Refusal(400, "malformed", "HTTP/1.0 has no Transfer-Encoding (RFC 9112 section 6.1)")
        if coding.strip().lower() != "chunked":
            return Refusal(501, "malformed", "Transfer-Encoding must be chunked")
    if "#" in request.raw_path:
        return Refusal(400, "target", "the request target must not have a fragment (#)")
    for host in (authority, headers.get(_HOST_FIELD, "")):
        if not is_host(host):
            return Refusal(400, "malformed", "Host must be a name or an address, with or without a port (RFC 9110 section 7.2)")
    for name in headers:
        if "_" in name and name.replace("_", "-").lower() in _LOOKALIKES:
            return Refusal(400, "malformed", f"the field {name} has an underscore, which some servers read as a hyphen; remove the field")
    return None


def explain(error: BaseException) -> Refusal:
    """Return the refusal for malformed bytes. It repeats none of them, because they may contain secrets."""
    match error:
        case HeadRefused():
            return error.refusal
        case LineTooLong():
            return Refusal(431, "head", "the request line or a header field is too long")
        case InvalidHeader():
            return Refusal(400, "malformed", "a header field is not valid")
        case InvalidURLError():
            return Refusal(400, "target", "the request target is not valid")
        case HttpProcessingError() if error.message.startswith(_TOO_MANY):
            return Refusal(431, "head", "the request has too many header fields")
        case HttpProcessingError():
            said = error.message.partition("\n")[0].rstrip(": ")  # the other lines repeat the client's bytes
            return Refusal(400, "malformed", said or "the request is not valid HTTP")
        case web.RequestPayloadError():
            return BAD_BODY
    return Refusal(500, "malformed", "the request could not be served")


class HeadRefused(HttpProcessingError):
    """A rejected head, of which no more is read."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(code=refusal.status, message=refusal.detail)
        self.refusal = refusal


class OneLineFilter(logging.Filter):
    """Log a client's malformed request as one line at level info, not as a stack trace at level error."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError | web.RequestPayloadError):
            record.levelno, record.levelname = logging.INFO, "INFO"
            record.msg, record.args, record.exc_info = "bad request: %s", (explain(error).detail,), None
        return True
