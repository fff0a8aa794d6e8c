"""Start, watch and replace the workers of a gateway: the parent process."""

import asyncio
import json
import math
import os
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import aiohttp
import structlog

from ...access.admission import OpenCounts
from ...observe.timeline import WORKER, Timeline
from ...observe.totals import Totals
from ...policy.route_table import RouteTable
from ...policy.settings import Settings
from ..listeners import Addresses, bind_listeners, close_listeners, port_of, url_of
from ..reload import Reload
from .admin import serve_admin
from .channel import Channel, Place
from .orders import Orders, replace_in_all
from .process import Worker
from .pulse import BEATS
from .running import listening_facts, stop_at_signal

log = structlog.get_logger()

_ENDING_SECONDS = 10.0
"""Seconds a worker has to exit after draining. Killed earlier, it would lose its last metrics. With the default drain time that makes
20 s, within the 30 s that the compose file allows."""
_STEADY_SECONDS = 10.0
"""A worker that served for at least this time is replaced at once."""
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 30.0
_LONGEST_DIRECTORY = 98
"""In bytes. A socket's name adds five, and its path may have 103 bytes on BSDs, 107 on Linux (unix(7))."""
_ASK_SECONDS = 1.0
"""Interval at which the parent reads the workers' metrics: a killed worker loses at most this much."""


class WorkerFailed(Exception):
    """A worker ended before it ever served. Unless killed, it has printed the reason on standard error."""

    def __init__(self, number: int, status: int) -> None:
        super().__init__(f"worker {number} failed to start: {_describe(status)}")
        self.status = status


class Workers:
    """All workers, restarted until they drain."""

    def __init__(self, settings: Settings, routes: RouteTable, sets: Sequence[Addresses], directory: str, counts: int) -> None:
        key = secrets.token_bytes(16)
        self._sets = sets
        self._counts_file = counts
        self._counts = OpenCounts(counts, key, len(sets), own=0)
        self._directory = directory
        self._drain_seconds = settings.drain_seconds
        self._silence_seconds = settings.worker_silence_seconds
        self._stopping = asyncio.Event()
        self._all_ready = asyncio.Event()
        self.orders = Orders(key, routes)
        self.totals = Totals()
        self.timeline = Timeline()
        self.restarts = 0
        self.workers = [Worker(number, self._place(number, -1).admin_path) for number in range(len(sets))]

    @property
    def draining(self) -> bool:
        """Whether the gateway is shutting down."""
        return self._stopping.is_set()

    async def until_ready(self) -> None:
        """Wait until every worker has been ready once."""
        await self._all_ready.wait()

    async def serve(self, stop: asyncio.Event) -> bool:
        """Keep all workers running until `stop`, then drain them. Return whether all ended in time.

        Raises WorkerFailed or OSError if a worker cannot start at all.
        """
        try:
            async with asyncio.TaskGroup() as group:
                keeping = [group.create_task(self._keep(worker)) for worker in self.workers]
                asking = group.create_task(self._ask_regularly())
                watching = group.create_task(self._watch())
                draining = group.create_task(self._drain_after(stop, keeping))
                await draining
                asking.cancel()
                watching.cancel()
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return draining.result()

    async def ask_for_figures(self) -> None:
        """Update `totals` from each worker that answers."""
        await asyncio.gather(*(self._ask_for_figures(worker) for worker in self.workers))

    async def _ask_for_figures(self, worker: Worker) -> None:
        process = worker.process
        if process is None:
            return
        try:
            _, _, text = await worker.ask("/metrics")
        except (TimeoutError, aiohttp.ClientError):
            return  # starting, ending or stuck: its last metrics stay valid, and /readyz reports it
        if worker.process is process:
            self.totals.take(worker.number, text.decode())

    async def _ask_regularly(self) -> None:
        while True:
            await asyncio.sleep(_ASK_SECONDS)
            await self.ask_for_figures()

    async def _watch(self) -> None:
        """Kill workers whose event loop is stuck. They are restarted like all that end."""
        while self._silence_seconds:
            await asyncio.sleep(self._silence_seconds / BEATS)
            for worker in self.workers:
                process = worker.process
                if self.draining or process is None or worker.state not in ("ready", "leaving") or not worker.pulse.is_missing():
                    continue
                log.error("worker killed, its event loop is stuck", worker=worker.number, silent_seconds=self._silence_seconds)
                worker.pulse.note()
                if process.returncode is None:
                    process.kill()

    async def _keep(self, worker: Worker) -> None:
        """Restart a worker whenever it ends, after a back-off that doubles while it serves only briefly."""
        loop = asyncio.get_running_loop()
        pause = 0.0
        while not self.draining:
            try:
                status = await self._live(worker)
                if not worker.served and not self.draining:
                    raise WorkerFailed(worker.number, status)
                end = _describe(status)
            except OSError as error:
                if not worker.served:
                    raise
                end = f"cannot be started: {error}"
            if self.draining:
                return
            pause = (
                0.0
                if loop.time() - worker.ready_at >= _STEADY_SECONDS
                else min(max(_FIRST_PAUSE_SECONDS, pause * 2), _LONGEST_PAUSE_SECONDS)
            )
            self.timeline.mark(WORKER, "", detail=f"worker {worker.number} ended: {end}")
            log.warning("worker ended", worker=worker.number, reason=end, starts_again_in_seconds=pause)
            try:
                await asyncio.wait_for(self._stopping.wait(), pause)
            except TimeoutError:
                self.restarts += 1

    async def _live(self, worker: Worker) -> int:
        """Run one worker process until it exits, and return its exit status."""
        ours, theirs = socket.socketpair()
        with theirs:
            descriptors = [theirs.fileno(), self._counts_file, *(sock.fileno() for addresses in self._sets for sock in addresses)]
            place = json.dumps(asdict(self._place(worker.number, theirs.fileno())))
            command = (sys.executable, "-m", "gateway.server.workers.worker", place)
            worker.state, worker.ready_at = "starting", math.inf
            worker.process = process = await asyncio.create_subprocess_exec(  # in its own session, so that Ctrl-C reaches only the parent
                *command, stdin=asyncio.subprocess.DEVNULL, pass_fds=descriptors, start_new_session=True
            )
        worker.channel = channel = await Channel.open(ours)
        try:
            channel.tell(**self.orders.plan)
            if self.draining:
                worker.drain()
            while (message := await channel.hear()) is not None:
                self._note(worker, message)
            worker.state = "gone"
            self._spread()
            return await asyncio.wait_for(process.wait(), _ENDING_SECONDS)
        except TimeoutError:
            return -signal.SIGKILL
        finally:
            await self._bury(worker, process, channel)

    async def _bury(self, worker: Worker, process: asyncio.subprocess.Process, channel: Channel) -> None:
        worker.state, worker.process, worker.channel = "gone", None, None
        if process.returncode is None:
            process.kill()
            await process.wait()
        await channel.close()
        self.orders.note_end(worker)
        self.totals.retire(worker.number)
        self._counts.clear(worker.number)
        self._counts.at(1).clear(worker.number)

    def _note(self, worker: Worker, message: dict[str, Any]) -> None:
        worker.pulse.note()
        if "figures" in message:
            self.totals.take(worker.number, message["figures"])
        elif "done" in message:
            self.orders.note(worker, message)
        elif "deleted" in message:
            for other in self.workers:
                if other is not worker and other.channel is not None:
                    other.channel.tell(**message)
        elif "state" in message:
            worker.state = message["state"]
            worker.served = True
            worker.ready_at = min(worker.ready_at, asyncio.get_running_loop().time())
            self._spread()
            if all(each.served for each in self.workers):
                self._all_ready.set()

    def _spread(self) -> None:
        """Make ready workers accept connections for absent ones, except those that never served: else the first worker would get most."""
        away = [worker.number for worker in self.workers if worker.served and worker.state != "ready"]
        for worker in self.workers:
            if worker.state == "ready" and worker.channel is not None and not self.draining:
                worker.channel.tell(adopt=away)

    async def _drain_after(self, stop: asyncio.Event, keeping: Sequence["asyncio.Task[None]"]) -> bool:
        await stop.wait()
        self._stopping.set()
        log.info("draining", workers=len(self.workers), seconds=self._drain_seconds)
        for worker in self.workers:
            worker.drain()
        close_listeners(self._sets)
        _, late = await asyncio.wait(keeping, timeout=self._drain_seconds + _ENDING_SECONDS)
        for worker in self.workers:
            if late and worker.process is not None:
                log.error("worker killed, it did not end in time", worker=worker.number)
                worker.process.kill()
        await asyncio.gather(*keeping)
        return not late

    def _place(self, number: int, channel: int) -> Place:
        sets = [[sock.fileno() for sock in addresses] for addresses in self._sets]
        return Place(number, self._directory, channel, self._counts_file, sets)


async def serve_with_workers(settings: Settings, routes: RouteTable) -> bool:
    """Serve with `settings.workers` workers until a signal, then drain them. Return whether all ended in time.

    Raises OSError if a port cannot be bound, WorkerFailed if a worker ends before it serves.
    """
    stop = stop_at_signal()
    sets = bind_listeners(settings.host, settings.port, settings.workers)
    url = url_of(settings.host, sets[0])
    with tempfile.TemporaryDirectory(prefix="gateway-", ignore_cleanup_errors=True) as directory, tempfile.TemporaryFile() as counts:
        if len(os.fsencode(directory)) > _LONGEST_DIRECTORY:
            raise OSError(f"the path {directory} is too long for Unix sockets: set TMPDIR to a directory with a shorter path")
        counts.truncate(OpenCounts.size(len(sets)))
        workers = Workers(settings, routes, sets, directory, counts.fileno())
        reload = Reload(settings, partial(replace_in_all, workers, prepare_seconds=settings.drain_seconds), workers.timeline)
        async with serve_admin(workers, settings, port_of(sets[0]), reload) as admin, reload.at_hangup():
            announcing = asyncio.create_task(_announce(workers, listening_facts(url, admin, routes)))
            try:
                in_time = await workers.serve(stop)
            finally:
                announcing.cancel()
    log.info("stopped")
    return in_time


async def _announce(workers: Workers, facts: dict[str, object]) -> None:
    await workers.until_ready()
    log.info("listening", **facts)


def _describe(status: int) -> str:
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
