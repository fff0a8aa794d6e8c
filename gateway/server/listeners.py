"""Listening sockets of the public port: one set per worker, open in all processes, so that no queue is lost with one process."""

import asyncio
import contextlib
import select
import socket
from collections.abc import Collection, Iterable, Sequence

from aiohttp import web

from ..policy.route_table import RouteTable

BACKLOG = 4096
_ACCEPTED_PER_TURN = 8  # uvloop accepts one a socket and turn of the loop, and a turn with a thousand writes takes 10 ms
_ACCEPTING_SECONDS, _ACCEPTING_TURNS = (
    0.1,
    64,
)  # limited, because the queue never empties under load; a busy machine takes few turns in 0.1 s

Addresses = Sequence[socket.socket]
"""One worker's listening sockets: one for each address of the host."""


def bind_listeners(host: str, port: int, count: int = 1) -> list[list[socket.socket]]:
    """Return `count` sets of listening sockets on one port, among which the kernel spreads connections. Port 0 picks a free one.

    Raises OSError if the port cannot be bound, even if its owner would share it (another gateway with workers).
    """
    asked = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sets: list[list[socket.socket]] = [[] for _ in range(count)]
    try:
        for family, address in dict.fromkeys((family, address) for family, _, _, _, address in asked):
            if count > 1:
                _bind(family, address, shared=False).close()  # with SO_REUSEPORT alone, binding beside another gateway would succeed
            for addresses in sets:
                place = (address[0], port or address[1], *address[2:])
                addresses.append(_bind(family, place, shared=count > 1))
                port = addresses[-1].getsockname()[1]
        for sock in (sock for addresses in sets for sock in addresses):
            sock.listen(BACKLOG)
    except OSError:
        close_listeners(sets)
        raise
    return sets


def close_listeners(sets: Iterable[Addresses]) -> None:
    """Close this process's descriptors. A queue ends when the last process closes its own."""
    for sock in (sock for addresses in sets for sock in addresses):
        sock.close()


def url_of(host: str, addresses: Addresses) -> str:
    """Return the URL of the first of `addresses`, with `host` as configured."""
    host = host or "0.0.0.0"  # noqa: S104  # only printed, not bound
    return f"http://{f'[{host}]' if ':' in host else host}:{port_of(addresses)}"


def port_of(addresses: Addresses) -> int:
    """Return the port of these sockets."""
    return int(addresses[0].getsockname()[1])


def listening_facts(url: str, admin: str, routes: RouteTable) -> dict[str, object]:
    """Return the fields of the log line that announces the gateway."""
    return {"url": url, "admin": admin, "routes": {route.path: route.upstream for route in routes.routes}}


def _bind(family: int, address: tuple[object, ...], *, shared: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        reason = (error.strerror or str(error)).lower()
        raise OSError(error.errno, f"error while attempting to bind on address {address!r}: {reason}") from error
    return sock


class Listeners:
    """The sets from which one process accepts connections: its own, and those of workers that are away."""

    def __init__(self, sets: Sequence[Addresses], own: int = 0) -> None:
        self._sets = sets
        self._own = own
        self._runner: web.BaseRunner | None = None
        self._sites: dict[int, list[web.SockSite]] = {}

    @property
    def port(self) -> int:
        """The port, which must still be open."""
        return port_of(self._sets[self._own])

    def __repr__(self) -> str:
        return f"<Listeners own={self._own} accepting={sorted(self._sites)}>"

    async def open(self, runner: web.BaseRunner) -> None:
        """Accept connections for `runner` from the own set."""
        self._runner = runner
        await self.adopt(())

    async def adopt(self, others: Collection[int]) -> None:
        """Accept from the own set and those of `others`, and from no further set."""
        if self._runner is None:
            return  # closed, or not open yet
        wanted = {self._own, *others}
        for number in self._sites.keys() - wanted:
            await self._leave(number)
        for number in sorted(wanted - self._sites.keys()):
            sites = self._sites[number] = []
            for sock in (sock for sock in self._sets[number] for _ in range(_ACCEPTED_PER_TURN)):
                sites.append(web.SockSite(self._runner, sock.dup(), backlog=BACKLOG))
                await sites[-1].start()

    async def leave(self) -> None:
        """Stop accepting. Workers that adopt the sets accept the queued connections."""
        self._runner = None
        for number in list(self._sites):
            await self._leave(number)
        close_listeners(self._sets)

    async def close(self) -> None:
        """Accept the queued connections, then shut the sockets down for all processes."""
        sets = [self._sets[number] for number in self._sites]
        deadline = asyncio.get_running_loop().time() + _ACCEPTING_SECONDS
        turns = 0
        while _queued(sets) and (turns < _ACCEPTING_TURNS or asyncio.get_running_loop().time() < deadline):
            await asyncio.sleep(0)  # each turn accepts some
            turns += 1
        for sock in (sock for addresses in sets for sock in addresses):
            with contextlib.suppress(OSError):  # another worker has shut it down
                sock.shutdown(socket.SHUT_RDWR)
        await self.leave()

    async def _leave(self, number: int) -> None:
        for site in self._sites.pop(number):
            await site.stop()


def _queued(sets: Iterable[Addresses]) -> bool:
    """Return whether a connection is waiting to be accepted."""
    poller = select.poll()
    for sock in (sock for addresses in sets for sock in addresses):
        poller.register(sock, select.POLLIN)
    return bool(poller.poll(0))
