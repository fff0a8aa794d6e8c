"""Listening sockets of the public port: a set for each worker, held by all, so that no queue is lost with one process."""

import asyncio
import contextlib
import select
import socket
from collections.abc import Collection, Iterable, Sequence

from aiohttp import web

BACKLOG = 4096
_ACCEPTED_PER_TURN = 8  # uvloop takes one of each socket per turn of the event loop, and a turn with a thousand writes takes 10 ms
_ACCEPTING_SECONDS, _ACCEPTING_TURNS = 0.1, 64  # under load there is always one more, and on a busy machine few turns are in the time

Addresses = Sequence[socket.socket]
"""One worker's listening sockets: one for each address of the host."""


def bind_listeners(host: str, port: int, count: int = 1) -> list[list[socket.socket]]:
    """Gives listening sockets for `count` workers, all on one port, among which the kernel spreads connections; port 0 takes a free one.

    Raises OSError when the port cannot be had, also when its holder would share it (another gateway with workers).
    """
    asked = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sets: list[list[socket.socket]] = [[] for _ in range(count)]
    try:
        for family, address in dict.fromkeys((family, address) for family, _, _, _, address in asked):
            if count > 1:
                _bind(family, address, shared=False).close()  # SO_REUSEPORT alone would not notice another gateway there
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
    """Closes this process's ends; a queue ends with the last of all."""
    for sock in (sock for addresses in sets for sock in addresses):
        sock.close()


def url_of(host: str, addresses: Addresses) -> str:
    """Gives the URL that leads to one of `addresses`, with `host` as it was asked for."""
    host = host or "0.0.0.0"  # noqa: S104  # only named here
    return f"http://{f'[{host}]' if ':' in host else host}:{port_of(addresses)}"


def port_of(addresses: Addresses) -> int:
    """Gives the port on which they listen."""
    return int(addresses[0].getsockname()[1])


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
    """What one process accepts connections from: its own set, and those of workers that are away."""

    def __init__(self, sets: Sequence[Addresses], own: int = 0) -> None:
        self._sets = sets
        self._own = own
        self._runner: web.BaseRunner | None = None
        self._sites: dict[int, list[web.SockSite]] = {}

    @property
    def port(self) -> int:
        """The port on which they listen; they must be open."""
        return port_of(self._sets[self._own])

    def __repr__(self) -> str:
        return f"<Listeners own={self._own} accepting={sorted(self._sites)}>"

    async def open(self, runner: web.BaseRunner) -> None:
        """Accepts connections for `runner`, from its own set."""
        self._runner = runner
        await self.adopt(())

    async def adopt(self, others: Collection[int]) -> None:
        """Accepts from its own set and from those of `others`, and leaves all further ones alone."""
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
        """Accepts from no set any more; what is queued is left to those who adopt it."""
        self._runner = None
        for number in list(self._sites):
            await self._leave(number)
        close_listeners(self._sets)

    async def close(self) -> None:
        """Accepts what is queued, then closes, for whoever else holds these sets too."""
        sets = [self._sets[number] for number in self._sites]
        deadline = asyncio.get_running_loop().time() + _ACCEPTING_SECONDS
        turns = 0
        while _queued(sets) and (turns < _ACCEPTING_TURNS or asyncio.get_running_loop().time() < deadline):
            await asyncio.sleep(0)  # each turn accepts some
            turns += 1
        for sock in (sock for addresses in sets for sock in addresses):
            with contextlib.suppress(OSError):  # another worker was first
                sock.shutdown(socket.SHUT_RDWR)
        await self.leave()

    async def _leave(self, number: int) -> None:
        for site in self._sites.pop(number):
            await site.stop()


def _queued(sets: Iterable[Addresses]) -> bool:
    """Tells whether a connection waits to be accepted."""
    poller = select.poll()
    for sock in (sock for addresses in sets for sock in addresses):
        poller.register(sock, select.POLLIN)
    return bool(poller.poll(0))
