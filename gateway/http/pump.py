"""Hand the body of an upstream's answer to a receiver by aiohttp's documented stream reader."""

import asyncio
import ssl

import aiohttp

from .asking import UpstreamAnswer
from .headers import is_delimited
from .receiver import CLOSED_EARLY, Receiver


def attach(response: UpstreamAnswer, receiver: Receiver) -> None:
    """Send the body of `response` to `receiver`: in this call if all of it is here, else in a task."""
    content = response.content
    lost = content.exception()
    if not content.is_eof() and lost is None:
        receiver.attached(Pump(response, receiver))
        return
    received = content.read_nowait() if lost is None else b""
    while received:
        receiver.feed(received)
        received = content.read_nowait()
    if lost is None:
        receiver.upstream_ended()
    else:
        receiver.upstream_lost(_why(lost))


class Pump:
    """Reads on while its receiver is not paused; aiohttp pauses the connection meanwhile."""

    def __init__(self, response: UpstreamAnswer, receiver: Receiver) -> None:
        self.lost: BaseException | None = None
        self._receiver: Receiver | None = receiver
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._end = _EndOfConnection.watch(response)
        self._delimited = is_delimited(response.headers)
        self._task = asyncio.create_task(self._run(response.content))

    def __repr__(self) -> str:
        return f"<Pump {'over' if self._receiver is None else 'open'}>"

    def pause(self) -> None:
        """Stop reading."""
        self._may_read.clear()

    def resume(self) -> None:
        """Read on."""
        self._may_read.set()

    def detach(self) -> None:
        """Forget the receiver."""
        self._receiver = None
        if self._task is not asyncio.current_task():
            self._task.cancel()

    async def _run(self, content: aiohttp.StreamReader) -> None:
        try:
            await self._wait()
            async for chunk in content.iter_any():
                if self._receiver is None:
                    return
                self._receiver.feed(chunk)
                await self._wait()
            if self._end is not None:
                await self._end.raise_if_lost(delimited=self._delimited)
        except (aiohttp.ClientError, OSError) as error:
            self.lost = error.__cause__ if isinstance(error.__cause__, OSError) else error
            if (receiver := self._receiver) is not None:
                receiver.upstream_lost(_why(error))
            return
        if (receiver := self._receiver) is not None:
            receiver.upstream_ended()

    async def _wait(self) -> None:
        receiver = self._receiver
        if receiver is not None and receiver.paused:
            self._may_read.clear()
            while receiver.paused and self._receiver is not None:
                await self._may_read.wait()
                await asyncio.sleep(0)  # a receiver that decodes asks for more by turns


class _EndOfConnection(asyncio.Protocol):
    """Stands between a transport and aiohttp's protocol, and notes how the connection ends.

    aiohttp takes a reset for the end of a body that only the end of the connection delimits (RFC 9112 section 6.3). It does not end a body
    whose bytes are not HTTP.
    """

    def __init__(self, transport: asyncio.Transport, protocol: asyncio.Protocol, content: aiohttp.StreamReader) -> None:
        self._transport = transport
        self._protocol = protocol
        self._content = content
        self._torn = False  # whether aiohttp has left the body without an end
        self._ended: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    @classmethod
    def watch(cls, response: UpstreamAnswer) -> "_EndOfConnection | None":
        """Watch the connection of a response, None if it is gone already."""
        connection = response.connection if isinstance(response, aiohttp.ClientResponse) else None
        transport = connection.transport if connection is not None else None
        if transport is None or not isinstance(protocol := transport.get_protocol(), asyncio.Protocol):
            return None
        watching = cls(transport, protocol, response.content)
        transport.set_protocol(watching)
        return watching

    def data_received(self, data: bytes) -> None:
        self._protocol.data_received(data)

    def eof_received(self) -> bool | None:
        return self._protocol.eof_received()

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._ended.done():
            self._ended.set_result(exc or self._find_torn_tls())
        self._protocol.connection_lost(exc)
        if not self._content.is_eof() and self._content.exception() is None:
            self._torn = True
            self._content.feed_eof()

    def _find_torn_tls(self) -> Exception | None:
        tls = self._transport.get_extra_info("ssl_object")
        if tls is None:
            return None
        try:
            tls.read(1)  # nothing behind the upstream's close_notify
        except ssl.SSLZeroReturnError:
            return None
        except ssl.SSLError:
            return ConnectionResetError("closed without a TLS close_notify")
        return None

    async def raise_if_lost(self, *, delimited: bool) -> None:
        """Raise ClientPayloadError if the body is torn, and OSError if it was to end with the connection, and that did not end in order."""
        if self._torn:
            raise aiohttp.ClientPayloadError("its body is not HTTP")
        if not delimited and (exc := await self._ended) is not None:
            raise ConnectionResetError(str(exc))


def _why(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientPayloadError) and not isinstance(error.__cause__, OSError):
        return CLOSED_EARLY
    return f"connection lost: {error}"
