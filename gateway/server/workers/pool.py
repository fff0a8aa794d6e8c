"""Start, watch and replace the workers of a gateway."""

import asyncio
import json
import math
import secrets
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import aiohttp
import structlog
from prometheus_client import Counter

from ...access.admission import OpenCounts
from ...observe.timeline import WORKER, Timeline
from ...observe.totals import Totals
from ...policy.route_table import RouteChanges, RouteTable
from ...policy.settings import Settings
from ..listeners import Addresses, close_listeners
from ..reload import DRAINING, ReloadFailed
from .channel import Channel, WorkerArguments
from .commands import Commands
from .process import Worker
from .watchdog import HEARTBEATS

log = structlog.get_logger()

_ENDING_SECONDS = 10.0
"""Seconds a worker has to exit after draining. Killed earlier, it would lose its last metrics. With the default drain time that makes
20 s, within the 30 s that the compose file allows."""
_STEADY_SECONDS = 10.0
"""A worker that served for at least this time is replaced at once."""
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 30.0
_UPDATE_SECONDS = 1.0
"""Interval at which the parent reads the workers' metrics: a killed worker loses at most this much."""


class WorkerFailed(Exception):
    """A worker ended before it ever served. Unless killed, it has printed the reason on standard error."""

    def __init__(self, number: int, status: int) -> None:
        super().__init__(f"worker {number} failed to start: {_describe(status)}")
        self.status = status


class WorkerPool:
    """All workers of a gateway, restarted until they drain."""

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
        self.commands = Commands(key, routes)
        self.totals = Totals()
        self.timeline = Timeline()
        self.restarts = Counter("gateway_worker_restarts_total", "Restarts of workers.", registry=None)
        self.workers = [Worker(number, self._arguments(number, -1).admin_path) for number in range(len(sets))]

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
                supervising = [group.create_task(self._supervise(worker)) for worker in self.workers]
                updating = group.create_task(self._update_regularly())
                watching = group.create_task(self._watch())
                draining = group.create_task(self._drain_after(stop, supervising))
                await draining
                updating.cancel()
                watching.cancel()
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return draining.result()

    async def replace_routes(self, routes: RouteTable) -> RouteChanges:
        """Make all workers serve these routes. Raises ReloadFailed if the old routes stay in force."""
        if self.draining:
            raise ReloadFailed(DRAINING)
        return await self.commands.replace_routes(self.workers, routes, self._drain_seconds)

    async def update_totals(self) -> None:
        """Update `totals` from each worker that answers."""
        await asyncio.gather(*(self._update_totals(worker) for worker in self.workers))

    async def _update_totals(self, worker: Worker) -> None:
        process = worker.process
        if process is None:
            return
        try:
            _, _, text = await worker.ask("/metrics")
        except (TimeoutError, aiohttp.ClientError):
            return  # starting, ending or stuck: its last metrics stay valid, and /readyz reports it
        if worker.process is process:
            self.totals.take(worker.number, text.decode())

    async def _update_regularly(self) -> None:
        while True:
            await asyncio.sleep(_UPDATE_SECONDS)
            await self.update_totals()

    async def _watch(self) -> None:
        """Kill workers whose event loop is stuck. They are restarted like all that end."""
        while self._silence_seconds:
            await asyncio.sleep(self._silence_seconds / HEARTBEATS)
            for worker in self.workers:
                process = worker.process
                if self.draining or process is None or worker.state not in ("ready", "leaving") or not worker.watchdog.expired():
                    continue
                log.error("worker killed, its event loop is stuck", worker=worker.number, silent_seconds=self._silence_seconds)
                worker.watchdog.reset()
                if process.returncode is None:
                    process.kill()

    async def _supervise(self, worker: Worker) -> None:
        """Restart a worker whenever it ends, after a back-off that doubles while it serves only briefly."""
        loop = asyncio.get_running_loop()
        pause = 0.0
        while not self.draining:
            try:
                status = await self._run_process(worker)
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
                self.restarts.inc()

    async def _run_process(self, worker: Worker) -> int:
        """Run one worker process until it exits, and return its exit status."""
        ours, theirs = socket.socketpair()
        with theirs:
            descriptors = [theirs.fileno(), self._counts_file, *(sock.fileno() for addresses in self._sets for sock in addresses)]
            arguments = json.dumps(asdict(self._arguments(worker.number, theirs.fileno())))
            command = (sys.executable, "-m", "gateway.server.workers.worker", arguments)
            worker.state, worker.ready_at = "starting", math.inf
            worker.process = process = await asyncio.create_subprocess_exec(  # in its own session, so that Ctrl-C reaches only the parent
                *command, stdin=asyncio.subprocess.DEVNULL, pass_fds=descriptors, start_new_session=True
            )
        worker.channel = channel = await Channel.open(ours)
        try:
            channel.send(**self.commands.plan)
            if self.draining:
                worker.drain()
            while (message := await channel.receive()) is not None:
                self._note(worker, message)
            worker.state = "gone"
            self._spread_connections()
            return await asyncio.wait_for(process.wait(), _ENDING_SECONDS)
        except TimeoutError:
            return -signal.SIGKILL
        finally:
            await self._clean_up(worker, process, channel)

    async def _clean_up(self, worker: Worker, process: asyncio.subprocess.Process, channel: Channel) -> None:
        worker.state, worker.process, worker.channel = "gone", None, None
        if process.returncode is None:
            process.kill()
            await process.wait()
        await channel.close()
        self.commands.note_end(worker)
        self.totals.retire(worker.number)
        self._counts.clear(worker.number)
        self._counts.at(1).clear(worker.number)

    def _note(self, worker: Worker, message: dict[str, Any]) -> None:
        worker.watchdog.reset()
        if "metrics" in message:
            self.totals.take(worker.number, message["metrics"])
        elif "done" in message:
            self.commands.note_result(worker, message)
        elif "deleted" in message:
            for other in self.workers:
                if other is not worker and other.channel is not None:
                    other.channel.send(**message)
        elif "state" in message:
            worker.state = message["state"]
            worker.served = True
            worker.ready_at = min(worker.ready_at, asyncio.get_running_loop().time())
            self._spread_connections()
            if all(each.served for each in self.workers):
                self._all_ready.set()

    def _spread_connections(self) -> None:
        """Make ready workers accept connections for absent ones, except those that never served: else the first worker would get most."""
        away = [worker.number for worker in self.workers if worker.served and worker.state != "ready"]
        for worker in self.workers:
            if worker.state == "ready" and worker.channel is not None and not self.draining:
                worker.channel.send(adopt=away)

    async def _drain_after(self, stop: asyncio.Event, supervising: Sequence["asyncio.Task[None]"]) -> bool:
        await stop.wait()
        self._stopping.set()
        log.info("draining", workers=len(self.workers), seconds=self._drain_seconds)
        for worker in self.workers:
            worker.drain()
        close_listeners(self._sets)
        _, late = await asyncio.wait(supervising, timeout=self._drain_seconds + _ENDING_SECONDS)
        for worker in self.workers:
            if late and worker.process is not None:
                log.error("worker killed, it did not end in time", worker=worker.number)
                worker.process.kill()
        await asyncio.gather(*supervising)
        return not late

    def _arguments(self, number: int, channel: int) -> WorkerArguments:
        sets = [[sock.fileno() for sock in addresses] for addresses in self._sets]
        return WorkerArguments(number, self._directory, channel, self._counts_file, sets)


def _describe(status: int) -> str:
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
