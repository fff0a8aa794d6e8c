"""Run the consumer: open the log, follow the source, write, maintain the directory, and stop without losing events."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from service.tracing import Tracing

from .intake import Intake
from .log import EventLog, Rotation
from .output import Output
from .subscription import SourceOptions, Subscription
from .upkeep import Retention, Upkeep
from .writer import FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS, Writer

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """All options of a worker."""

    source: SourceOptions
    log_directory: Path
    rotation: Rotation = field(default_factory=Rotation)
    retention: Retention = field(default_factory=Retention)
    repeat_window: int = 100_000
    gaps_from_ids: bool = True
    drain_seconds: float = 5.0


class Worker:
    """Log the events of one source, from `run` until `stop`."""

    def __init__(self, options: WorkerOptions, output: Output | None = None, tracing: Tracing | None = None) -> None:
        self.intake: Intake | None = None
        self.writer: Writer | None = None
        self.subscription: Subscription | None = None
        self.output = output
        self._tracing = tracing
        self._options = options
        self._stopping = asyncio.Event()
        self._not_open = "the log is being opened"
        self._on_write: Callable[[float], object] | None = None

    def __repr__(self) -> str:
        return f"<Worker {self._options.log_directory} not_ready={self.not_ready()!r}>"

    def not_ready(self) -> str | None:
        """Return why events cannot be logged now, None when they can."""
        if self.writer is None or self.subscription is None:
            return self._not_open
        if self.writer.failure is not None:
            return f"the log cannot be written: {self.writer.failure}"
        return self.subscription.not_ready

    def watch_writes(self, on_write: Callable[[float], object]) -> None:
        """Call `on_write` with the seconds that each write took until it was durable."""
        self._on_write = on_write

    def stop(self) -> None:
        """Make `run` return."""
        self._stopping.set()

    async def run(self) -> bool:
        """Run until `stop`. Return whether everything that was taken in is durable. Raises LogInUse."""
        log = await self._open()
        if log is None:
            return True
        options = self._options
        recovered = log.recovered
        self.intake = Intake(options.source.name, recovered, window=options.repeat_window, gaps_from_ids=options.gaps_from_ids)
        self.writer = Writer(log, self.output, options.rotation.sync_seconds)
        self.writer.on_write = self._on_write
        self.subscription = Subscription(options.source, self.intake, self.writer, recovered.checkpoint, self._tracing)
        upkeep = Upkeep(log.directory, options.retention, self.writer.upkeep_due)
        async with asyncio.TaskGroup() as tasks:
            writing = tasks.create_task(self.writer.run())
            following = tasks.create_task(self.subscription.run())
            keeping = tasks.create_task(upkeep.run())
            await self._stopping.wait()
            upkeep.stop()
            await self.subscription.stop()
            following.cancel()  # it may wait for room in a log that cannot be written
            self.writer.close()
            await asyncio.wait([writing, keeping], timeout=options.drain_seconds)
            drained = writing.done() and not self.writer.pending_bytes
            writing.cancel()
            keeping.cancel()
        if drained:
            log.close()
        _log.info("stopped", events=self.intake.tally.events, not_written_bytes=self.writer.pending_bytes)
        return drained

    async def _open(self) -> EventLog | None:
        """Open the log, retrying until it succeeds. Return None if the worker is stopped before that."""
        options = self._options
        delay = FIRST_RETRY_SECONDS
        while not self._stopping.is_set():
            try:
                log = await asyncio.to_thread(
                    EventLog, options.log_directory, options.rotation, source=options.source.name, window=options.repeat_window
                )
            except OSError as error:
                self._not_open = f"the log cannot be opened: {error.strerror or error} ({options.log_directory})"
                _log.error("the log cannot be opened; retrying", reason=self._not_open, seconds=delay)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), delay)
                delay = min(delay * 2, LONGEST_RETRY_SECONDS)
            else:
                self._report(log)
                return log
        return None

    @staticmethod
    def _report(log: EventLog) -> None:
        recovered = log.recovered
        if recovered.cut_bytes:
            _log.warning("a torn last line was removed from the log: it was never acknowledged", bytes=recovered.cut_bytes)
        if recovered.other_source is not None:
            _log.warning("the log's newest events came from another source, whose IDs cannot be used here", other=recovered.other_source)
        for reason in recovered.unreadable:
            _log.error("a segment of the log is damaged; run `verify` for details", reason=reason)
        _log.info(
            "log opened",
            directory=str(log.directory),
            next_position=f"{recovered.epoch}-{recovered.next_number}",
            last_event_id=recovered.checkpoint,
            remembered=len(recovered.recent),
        )
