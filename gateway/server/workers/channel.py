"""The channel between parent and worker, and a worker's command line."""

import asyncio
import contextlib
import json
import socket
from dataclasses import dataclass
from typing import Any

_MAX_MESSAGE_BYTES = 2**24


@dataclass(frozen=True)
class WorkerArguments:
    """A worker's command line: its number and the descriptors that it inherits."""

    number: int
    directory: str
    """Directory of the Unix sockets on which workers serve their admin endpoints."""
    channel: int
    """Descriptor of the connection to the parent."""
    counts: int
    """Descriptor of the memory for `OpenCounts`."""
    sets: list[list[int]]
    """Descriptors of the listening sockets of all workers."""

    @property
    def admin_path(self) -> str:
        """Path of the Unix socket of the admin endpoints."""
        return f"{self.directory}/{self.number}"


class Channel:
    """The connection between parent and worker: one line of JSON a message."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, sock: socket.socket) -> "Channel":
        """Return a channel over one end of a socket pair, which the channel then owns."""
        sock.setblocking(False)
        return cls(*await asyncio.open_unix_connection(sock=sock, limit=_MAX_MESSAGE_BYTES))

    def send(self, **message: object) -> None:
        """Send a message, unless the connection is closing."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def receive(self) -> dict[str, Any] | None:
        """Return the next message, None if the other process is gone."""
        try:
            line = await self._reader.readline()
        except ConnectionError:
            return None
        return dict(json.loads(line)) if line.endswith(b"\n") else None

    async def close(self) -> None:
        """Send pending messages, then close."""
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()
