"""Listening sockets that several workers hold."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvloop
from aiohttp import web

from gateway.server import listeners as listeners_module
from gateway.server.listeners import Listeners, bind_listeners, close_listeners, url_of
from tests.kit.waiting import GUARD_SECONDS


class Counting:
    """A runner whose server only counts who comes."""

    def __init__(self) -> None:
        self._runner = web.ServerRunner(web.Server(self._never))
        self._server: web.Server | None = None

    @staticmethod
    async def _never(_request: web.BaseRequest) -> web.StreamResponse:
        raise AssertionError("no request is expected here")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[web.BaseRunner]:
        await self._runner.setup()
        try:
            yield self._runner
        finally:
            await self._runner.cleanup()  # uvloop does not come back from its end while a connection is open

    @property
    def accepted(self) -> int:
        assert self._runner.server is not None
        return len(self._runner.server.connections)

    async def until(self, count: int) -> None:
        """Wait until `count` connections have been accepted."""
        async with asyncio.timeout(GUARD_SECONDS):
            while self.accepted < count:
                await asyncio.sleep(0.01)
        assert self.accepted == count


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), GUARD_SECONDS)


def test_turn_of_the_event_loop_accepts_several_connections() -> None:
    """A turn takes long when there is a lot to write, and those who come then do not wait for one turn each."""

    async def count_turns() -> int:
        [own] = bind_listeners("127.0.0.1", 0)
        listeners = Listeners([own])
        counting = Counting()
        async with counting.running() as runner:
            await listeners.open(runner)
            clients = [connect(own[0].getsockname()[1]) for _ in range(64)]
            turns = 0
            while counting.accepted < len(clients):
                await asyncio.sleep(0)
                turns += 1
            await listeners.leave()
            for client in clients:
                client.close()
            return turns

    assert uvloop.run(asyncio.wait_for(count_turns(), GUARD_SECONDS)) < 32


def test_all_workers_get_the_same_free_port() -> None:
    sets = bind_listeners("127.0.0.1", 0, 3)
    ports = {sock.getsockname()[1] for addresses in sets for sock in addresses}
    assert len(sets) == 3
    assert len(ports) == 1
    assert url_of("127.0.0.1", sets[0]) == f"http://127.0.0.1:{ports.pop()}"
    close_listeners(sets)


def test_each_address_of_a_host_is_listened_on_with_one_port() -> None:
    sets = bind_listeners("", 0, 2)
    assert {len(addresses) for addresses in sets} == {len({sock.family for sock in sets[0]})}
    assert len({sock.getsockname()[1] for addresses in sets for sock in addresses}) == 1
    assert url_of("", sets[0]).startswith("http://0.0.0.0:")
    close_listeners(sets)


def test_url_of_an_ipv6_address_has_brackets() -> None:
    sets = bind_listeners("127.0.0.1", 0)
    assert url_of("::1", sets[0]) == f"http://[::1]:{sets[0][0].getsockname()[1]}"
    close_listeners(sets)


@pytest.mark.parametrize("count", [1, 2])
def test_port_of_another_process_is_refused_even_if_it_would_share_it(count: int) -> None:
    taken = bind_listeners("127.0.0.1", 0, 2)
    port = taken[0][0].getsockname()[1]
    with pytest.raises(OSError, match=rf"address \('127.0.0.1', {port}\): address already in use"):
        bind_listeners("127.0.0.1", port, count)
    close_listeners(taken)


async def test_connections_queued_for_a_dead_worker_are_accepted_by_the_adopter() -> None:
    sets = bind_listeners("127.0.0.1", 0, 2)
    own, counting = Listeners(sets, own=0), Counting()
    clients = [connect(sets[0][0].getsockname()[1]) for _ in range(40)]
    async with counting.running() as runner:
        await own.open(runner)
        assert repr(own) == "<Listeners own=0 accepting=[0]>"
        await own.adopt([1])
        await counting.until(40)
        await own.adopt([])
        assert repr(own) == "<Listeners own=0 accepting=[0]>"
        await own.leave()
    for client in clients:
        client.close()


async def test_leaving_worker_accepts_no_more_and_the_queue_stays_for_others() -> None:
    sets = bind_listeners("127.0.0.1", 0)
    copies = [[sock.dup() for sock in addresses] for addresses in sets]
    port = sets[0][0].getsockname()[1]
    first, second = Counting(), Counting()
    async with first.running() as runner, second.running() as successor:
        leaving, staying = Listeners(sets), Listeners(copies)
        await leaving.open(runner)
        await leaving.leave()
        await leaving.adopt([0])
        with connect(port):
            await staying.open(successor)
            await second.until(1)
            await first.until(0)
        await staying.leave()


def test_close_accepts_queued_connections_and_ends_the_port_for_all_holders(monkeypatch: pytest.MonkeyPatch) -> None:
    uvloop.run(_accept_and_close(monkeypatch))  # as the gateway does; asyncio's own loop takes a turn more to serve what it accepted


async def _accept_and_close(monkeypatch: pytest.MonkeyPatch) -> None:
    sets = bind_listeners("127.0.0.1", 0)
    copies = [[sock.dup() for sock in addresses] for addresses in sets]
    port = sets[0][0].getsockname()[1]
    counting = Counting()
    async with counting.running() as runner:
        listeners = Listeners(sets)
        await listeners.open(runner)
        clients = [connect(port) for _ in range(100)]  # the loop had no turn to accept one
        monkeypatch.setattr(listeners_module, "_ACCEPTING_SECONDS", 0)  # as a machine that is busy may leave it
        await listeners.close()
        await counting.until(100)
        with pytest.raises(ConnectionRefusedError):
            connect(port)
    close_listeners(copies)
    for client in clients:
        client.close()
