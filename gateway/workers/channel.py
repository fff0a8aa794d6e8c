"""What parent and worker tell each other, and what a worker is told at its start."""

import asyncio
import contextlib
import json
import socket
from dataclasses import dataclass
from typing import Any

_MAX_MESSAGE_BYTES = 2**24


@dataclass(frozen=True)
class Place:
    """What a worker is told by its command line: which it is, and what it has inherited."""

    number: int
    directory: str
    """Where workers serve their admin surfaces, each on a Unix socket."""
    channel: int
    """Descriptor of the connection to the parent."""
    counts: int
    """Descriptor of the memory for `OpenCounts`."""
    sets: list[list[int]]
    """Descriptors of the listening sockets of all workers."""

    @property
    def admin_path(self) -> str:
        """The path of the admin surface's socket."""
        return f"{self.directory}/{self.number}"


class Channel:
    """The connection between parent and worker, a line of JSON a message."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, sock: socket.socket) -> "Channel":
        """Gives the channel over one end of a socket pair, and owns that end."""
        sock.setblocking(False)
        return cls(*await asyncio.open_unix_connection(sock=sock, limit=_MAX_MESSAGE_BYTES))

    def tell(self, **message: object) -> None:
        """Sends a message, if there is still somebody to read it."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def hear(self) -> dict[str, Any] | None:
        """Gives the next message; None when the other process is gone."""
        try:
            line = await self._reader.readline()
        except ConnectionError:
            return None
        return dict(json.loads(line)) if line.endswith(b"\n") else None

    async def close(self) -> None:
        """Sends what was told and closes."""
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()
