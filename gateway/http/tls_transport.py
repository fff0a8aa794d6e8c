"""TLS to upstreams.

The TLS layers of asyncio and uvloop drop bytes that were received but not yet handed over when the connection ends. They read without
the bound of `ReadBuffer`, keep 256 KiB per connection, and wait up to 30 s for the peer when a connection is closed. The socket is closed
before the protocol learns of a failed write. So this module drives `ssl.SSLObject` itself, over the same bounded reads as plain TCP.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Iterable
from typing import Any, cast

import aiohttp

from .read_buffer import SAMPLE_EVERY, BoundedReads, Owner

_RECORD_BYTES = 16 * 1024  # the most plaintext in a TLS record (RFC 8446 section 5.1)


class UnexpectedEnd(aiohttp.ServerDisconnectedError):
    """The connection ended without a close_notify, so nothing says that it was the upstream that ended it (RFC 8446 section 6.1)."""

    def __init__(self) -> None:
        super().__init__("closed without a TLS close_notify")


class TlsTransport(BoundedReads):
    """A TLS connection: the protocol of the TCP transport below it, and the transport of the owner above it.

    All plaintext of a read is handed over in the call that read it, so that pausing the TCP transport is all the flow control there is:
    a paused connection holds no more than the rest of one record, and its end is seen after its last byte.
    """

    __slots__ = ("_closed_here", "_ended", "_failure", "_incoming", "_outgoing", "_ready", "_tcp", "_tls")
    _tcp: asyncio.Transport

    def __init__(self, owner: Owner, context: ssl.SSLContext, server_hostname: str | None) -> None:
        super().__init__(owner, owner.read_buffer)
        context.options |= ssl.OP_NO_RENEGOTIATION  # else a write might have to wait for a read
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ended = False  # by a close_notify
        self._closed_here = False
        self._failure: ssl.SSLError | None = None

    async def shake_hands(self, key: Any) -> None:
        """Return when the handshake is done and the owner has its transport.

        Raises aiohttp's errors for the connection `key` if it fails. If it is cancelled the connection is aborted.
        """
        try:
            await self._ready
        except asyncio.CancelledError:
            self.abort()
            raise
        except ssl.CertificateError as error:
            raise aiohttp.ClientConnectorCertificateError(key, error) from error
        except ssl.SSLError as error:
            raise aiohttp.ClientConnectorSSLError(key, error) from error
        except OSError as error:
            raise aiohttp.ClientConnectorError(key, error) from error

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._tcp = cast(asyncio.Transport, transport)
        self._advance_handshake()

    def buffer_updated(self, nbytes: int) -> None:
        self._incoming.write(self._buffer.memory[:nbytes])
        if not self._ready.done():
            self._advance_handshake()
            return
        owner = self._owner
        if owner.flat_out is not (nbytes == self._offered):
            owner.set_flat_out(not owner.flat_out)
        self._hand_over()

    def eof_received(self) -> None:
        """Let the TCP transport close; connection_lost reports whether the end was announced."""

    def connection_lost(self, exc: BaseException | None) -> None:
        if not self._ready.done():
            self._fail(exc or ConnectionResetError("closed by the upstream during the TLS handshake"))
        if self._ready.cancelled() or self._ready.exception() is not None:
            return  # the owner never had a transport
        if exc is not None:
            self._read_rest()
        elif not self._ended and not self._closed_here:
            exc = UnexpectedEnd()
        self._owner.connection_lost(self._failure or exc)

    def _take(self, data: bytes) -> None:
        self._incoming.write(data)
        self._hand_over()

    def _advance_handshake(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError as error:
            self._flush()  # the alert that says why
            self._fail(error)
            self._tcp.close()
        else:
            self._flush()
            self._owner.connection_made(cast(asyncio.Transport, self))
            self._ready.set_result(None)
            self._hand_over()  # bytes that followed the handshake

    def _fail(self, error: BaseException) -> None:
        self._ready.set_exception(error)
        self._ready.exception()  # asyncio warns of unread exceptions, and the connecting task may have been cancelled

    def _hand_over(self) -> None:
        """Decrypt the received bytes and hand them over in one piece."""
        parts: list[bytes] = []
        try:
            while self._incoming.pending or self._tls.pending():
                part = self._tls.read(_RECORD_BYTES)
                if not part:
                    self._ended = True
                    break
                parts.append(part)
        except ssl.SSLWantReadError:
            pass  # the rest of a record is to come
        except ssl.SSLZeroReturnError:
            self._ended = True
        except ssl.SSLError as error:
            self._failure = error
        self._flush()  # answers to key updates, and alerts
        if parts:
            self._deliver(b"".join(parts))
        if self._failure is not None:
            self._tcp.abort()
        elif self._ended and not self._closed_here:
            self._owner.eof_received()
            self.close()

    def _deliver(self, data: bytes) -> None:
        buffer = self._buffer
        buffer.until_sample -= 1
        if buffer.until_sample > 0:
            self._owner.data_received(data)
        else:
            buffer.until_sample = SAMPLE_EVERY
            self._owner.time_read(data, buffer.note_latency)

    def _flush(self) -> None:
        if self._outgoing.pending and not self._tcp.is_closing():
            self._tcp.write(self._outgoing.read())

    # The interface of a transport that aiohttp uses

    def write(self, data: bytes) -> None:
        """Encrypt and send `data`; nothing is sent once the connection is closing."""
        if data and not self._tcp.is_closing():
            self._tls.write(data)
            self._flush()

    def writelines(self, data: Iterable[bytes]) -> None:
        """Encrypt and send all of `data`."""
        self.write(b"".join(data))

    def close(self) -> None:
        """Send what is buffered and a close_notify, and close without waiting for the upstream's (RFC 9112 section 9.8)."""
        if self._tcp.is_closing():
            return
        self._closed_here = True
        with contextlib.suppress(ssl.SSLError):  # the upstream's close_notify is not awaited
            self._tls.unwrap()
        self._flush()
        self._tcp.close()

    def abort(self) -> None:
        """Close at once, and send nothing more."""
        self._closed_here = True
        self._tcp.abort()

    def is_closing(self) -> bool:
        """Return whether the connection is closing."""
        return self._tcp.is_closing()

    def is_reading(self) -> bool:
        """Return whether reading is not paused."""
        return self._tcp.is_reading()

    def pause_reading(self) -> None:
        """Pause reading from the upstream."""
        self._tcp.pause_reading()

    def resume_reading(self) -> None:
        """Resume reading."""
        self._tcp.resume_reading()

    def can_write_eof(self) -> bool:
        """Return False: TLS ends both directions at once."""
        return False

    def get_write_buffer_size(self) -> int:
        """Return the number of encrypted bytes in the send buffer."""
        return self._tcp.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the water marks at which the owner pauses and resumes writing."""
        self._tcp.set_write_buffer_limits(high, low)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol of the TCP transport."""
        return self

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return a fact about the connection: `ssl_object`, `sslcontext`, `peercert`, `cipher`, or one of the TCP transport's."""
        match name:
            case "ssl_object":
                return self._tls
            case "sslcontext":
                return self._tls.context
            case "peercert":
                return self._tls.getpeercert()
            case "cipher":
                return self._tls.cipher()
            case _:
                return self._tcp.get_extra_info(name, default)
