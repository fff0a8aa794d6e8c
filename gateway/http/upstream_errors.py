"""Why an upstream gave no answer, said to clients and in the log; its address is not for everybody."""

import os

import aiohttp

from eventstream.tls import describe_tls, find_tls_error

_TLS_ADVICE = {
    "self-signed certificate": "name the authority that issued it, or the certificate itself, with ca_file",
    "unable to get local issuer certificate": "name the authority that issued it with ca_file",
    "certificate required": "the upstream wants client_certificate_file",
    "handshake failure": "the upstream may want client_certificate_file",
    "unknown ca": "the upstream does not trust client_certificate_file",
    "bad certificate": "the upstream does not take client_certificate_file",
    "wrong version number": "the upstream does not speak TLS; its URL may have to begin with http://",
    "record layer failure": "the upstream does not speak TLS; its URL may have to begin with http://",
}


_DRAINED = "the upstream is down, and the gateway is shutting down; come back later"


class BadHead(aiohttp.ClientError):
    """The head of an answer cannot be passed on; the message says why."""


class HeadTooLarge(BadHead):
    """The head of an answer passes a limit."""

    def __init__(self, max_bytes: int, what: str = "the head of its answer") -> None:
        super().__init__(f"{what} passed {max_bytes} bytes, which is the limit")


class Drained(aiohttp.ClientConnectionError):
    """The gateway shuts down and waits no longer for an upstream that is down."""

    def __init__(self) -> None:
        super().__init__(_DRAINED)


def advise(reason: str) -> str:
    """Return the reason, and what to do about it where it is one of TLS."""
    advice = next((advice for found, advice in _TLS_ADVICE.items() if found in reason), "") if reason.startswith("TLS: ") else ""
    return f"{reason}; {advice}" if advice else reason


def explain(error: Exception) -> str:
    """Return why an upstream could not be asked, or did not answer."""
    if (tls_error := find_tls_error(error)) is not None:
        return advise(describe_tls(tls_error))
    match error:
        case aiohttp.ClientConnectorError(os_error=cause):
            return f"cannot connect: {os.strerror(cause.errno) if cause.errno else cause}"
        case BadHead():
            return str(error)
        case aiohttp.ServerDisconnectedError():
            return "closed the connection without an answer"
        case aiohttp.ClientOSError():
            return f"connection lost: {error.strerror or error}"
        case _:
            return "its answer is not HTTP"
