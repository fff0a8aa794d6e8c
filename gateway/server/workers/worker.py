"""A serving process: the only one, or one of several workers, which the parent starts as `python -m gateway.server.workers.worker`."""

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
from dataclasses import asdict
from functools import partial
from typing import Any

import structlog
from aiohttp import web

from service.event_loop import run, stop_at_signal
from service.logs import configure_logs
from service.settings import settings_or_exit
from service.tracing import Tracing, tracing_or_exit

from ...access.admission import OpenCounts
from ...modes.resumable.peers import Peers
from ...policy.deletion import Deletion
from ...policy.route_table import RouteError, RouteTable, routes_of
from ...policy.settings import Settings
from ..app import Gateway, run_gateway
from ..listeners import BACKLOG, Listeners, bind_listeners, listening_facts, url_of
from ..routing import Routing
from .channel import Channel, WorkerArguments
from .watchdog import send_heartbeats

log = structlog.get_logger()

_HANDOVER_SECONDS = 0.2
"""Seconds in which requests on just accepted connections may arrive before a leaving worker rejects them."""


async def serve_alone(settings: Settings, routes: RouteTable, tracing: Tracing | None) -> None:
    """Serve as the only process until a signal, then drain. Raises OSError if a port cannot be bound."""
    stop = stop_at_signal()
    sets = bind_listeners(settings.host, settings.port)
    url = url_of(settings.host, sets[0])
    sites: list[web.BaseSite] = []

    def open_admin(runner: web.BaseRunner) -> web.BaseSite:
        sites.append(web.TCPSite(runner, settings.admin_host, settings.admin_port, backlog=BACKLOG))
        return sites[0]

    async with run_gateway(settings, routes, Listeners(sets), open_admin, tracing=tracing) as gateway:
        async with gateway.reload.at_hangup():
            log.info("listening", **listening_facts(url, sites[0].name, routes))
            await stop.wait()
        await gateway.drain()
    log.info("stopped")


async def _serve_among_others(settings: Settings, arguments: WorkerArguments, tracing: Tracing | None) -> None:
    signalled = stop_at_signal()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, _leave_reloading_to_parent)
    channel = await Channel.open(socket.socket(fileno=arguments.channel))
    plan = await channel.receive()
    if plan is None:
        _remove_sockets(arguments)
        return  # the parent ended before this worker started
    routes = routes_of(plan["routes"])
    counts = OpenCounts(arguments.counts, bytes.fromhex(plan["key"]), len(arguments.sets), arguments.number)
    listeners = Listeners([[_inherited(number) for number in numbers] for numbers in arguments.sets], arguments.number)
    opened: asyncio.Future[Gateway] = asyncio.get_running_loop().create_future()
    handling = asyncio.create_task(_handle_messages(channel, listeners, opened, signalled))
    divided = ("max_history_bytes", "max_kept_bytes", "max_store_bytes", "max_held_body_bytes")
    shares = {name: max(1, getattr(settings, name) // len(arguments.sets)) for name in divided}
    settings = settings.model_copy(update=shares)
    open_admin = partial(web.UnixSite, path=arguments.admin_path)
    peers = Peers(arguments.number, [f"{arguments.directory}/{number}.peer" for number in range(len(arguments.sets))])
    peers.send_deletion = lambda deletion: channel.send(deleted=asdict(deletion))
    async with run_gateway(settings, routes, listeners, open_admin, counts, peers, tracing) as gateway:
        opened.set_result(gateway)
        channel.send(state="ready")
        heartbeats = asyncio.create_task(send_heartbeats(channel, settings.worker_silence_seconds))
        leaving = asyncio.create_task(signalled.wait())
        await asyncio.wait((handling, leaving), return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()
        if not handling.done():  # the signal was for this worker only: the others take over at once, and the parent starts a new one
            await listeners.leave()
            channel.send(state="leaving")
            await asyncio.sleep(_HANDOVER_SECONDS)
        await gateway.drain()
    if handling.done() and not handling.result():
        _remove_sockets(arguments)
    heartbeats.cancel()
    handling.cancel()  # before the channel closes, which would look like the parent's end
    channel.send(metrics=gateway.metrics_text())
    await channel.close()


def _leave_reloading_to_parent() -> None:
    log.info("a worker ignores SIGHUP; send it to the parent", parent=os.getppid())


def _remove_sockets(arguments: WorkerArguments) -> None:
    """Remove the sockets' directory in place of the parent that is gone."""
    shutil.rmtree(arguments.directory, ignore_errors=True)  # another worker may remove it at the same time


class CommandHandler:
    """Carry out the parent's commands: prepare or adopt routes."""

    def __init__(self) -> None:
        self._prepared: tuple[object, RouteTable] | None = None

    async def handle(self, routing: Routing, command: dict[str, Any]) -> str:
        """Carry out a command. Return the error, empty on success."""
        tables = command.get("put") or command["prepare"]
        try:
            if "prepare" in command or self._prepared is None or self._prepared[0] != tables:
                routes = routes_of(tables)
                await routing.prepare(routes)
                self._prepared = tables, routes
            if "put" in command:
                routing.put(self._prepared[1])
                self._prepared = None
        except (OSError, RouteError) as error:
            return str(error)
        return ""


async def _handle_messages(channel: Channel, listeners: Listeners, opened: "asyncio.Future[Gateway]", leave: asyncio.Event) -> bool:
    """Handle the parent's messages until it commands all workers to drain. Return False if the parent is gone instead."""
    handler = CommandHandler()
    while (message := await channel.receive()) is not None:
        if "drain" in message:
            return True
        if "deleted" in message:
            (await opened).routing.forget(Deletion(**message["deleted"]))
            continue
        if "command" in message:
            error = await handler.handle((await opened).routing, message)
            channel.send(done=message["command"], error=error)
            if error and "put" in message:
                log.error("worker leaves: it cannot serve the new routes", reason=error)
                leave.set()
            continue
        try:
            await listeners.adopt(message["adopt"])
        except OSError as failure:  # too many open files; open connections continue
            log.error("cannot accept for other workers", reason=str(failure))
    log.warning("parent is gone, draining")
    return False


def _inherited(descriptor: int) -> socket.socket:
    sock = socket.socket(fileno=descriptor)
    sock.setblocking(False)
    return sock


def main() -> None:
    """Serve as one of several workers. The command line is a `WorkerArguments` as JSON; the channel carries the rest."""
    arguments = WorkerArguments(**json.loads(sys.argv[1]))
    settings = settings_or_exit(Settings)
    configure_logs("gateway", settings.log_level, worker=arguments.number)
    try:
        run(_serve_among_others(settings, arguments, tracing_or_exit("gateway")))
    except OSError as error:
        raise SystemExit(f"gateway: {error}") from None


if __name__ == "__main__":
    main()
