"""aiohttp's low-level server, with the gateway's protocol."""

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from .downstream import DownstreamProtocol


class DownstreamServer(web.Server):
    """aiohttp's low-level server with that protocol."""

    def __call__(self) -> RequestHandler:
        return DownstreamProtocol(self, loop=self._loop, **self._kwargs)

    def count_connections(self) -> int:
        """Return how many connections there are."""
        return len(self._connections)

    def close_idle(self, count: int) -> int:
        """Close `count` connections without a request in progress, the oldest first, and return how many there were."""
        closed = 0
        for protocol in self.connections:
            if isinstance(protocol, DownstreamProtocol) and protocol.is_idle:
                protocol.force_close()
                closed += 1
                if closed >= count:
                    break
        return closed
