"""`python -m consumer`: log an event stream. `python -m consumer verify DIR`, `python -m consumer tail DIR`: read such a log."""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import TextIO, cast

import structlog
import uvloop
from aiohttp import web

from service.logs import configure_logs
from service.settings import parse_arguments, settings_or_exit
from service.tracing import Tracing, tracing_or_exit

from .app import WorkerMetrics, create_app
from .log import SYNC_SECONDS, LogInUse, Rotation
from .output import Output
from .settings import ConsumerSettings
from .subscription import SourceOptions
from .tail import tail
from .upkeep import Retention
from .verify import verify
from .worker import Worker, WorkerOptions


def main(arguments: list[str] | None = None) -> int:
    """Run the command line. Return the exit status: 0 done, 1 a log with problems or in use, 2 wrong usage."""
    asked = parse_arguments(_parser(), ConsumerSettings, arguments)
    if asked.command is not None:
        return _read_log(asked)
    return _consume(settings_or_exit(ConsumerSettings))


def _read_log(asked: argparse.Namespace) -> int:
    try:
        if asked.command == "verify":
            return verify(asked.directory, show_events=asked.events)
        return tail(asked.directory, count=asked.lines, follow=asked.follow)
    except BrokenPipeError:  # the reader of our output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes at exit
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m consumer", description="Log each event of an event stream durably, in order and exactly once."
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="without a command: consume; with a command: read a log")
    check = commands.add_parser("verify", help="check a log; the exit status is 0 only if it is clean", description=verify.__doc__)
    check.add_argument("directory", type=Path, metavar="DIR")
    check.add_argument("--events", action="store_true", help="print each event's line too")
    follow = commands.add_parser("tail", help="print a log's newest lines and follow it", description=tail.__doc__)
    follow.add_argument("directory", type=Path, metavar="DIR")
    follow.add_argument("-n", "--lines", type=_count, default=10, metavar="N", help="number of lines to start with (default 10)")
    follow.add_argument("--no-follow", dest="follow", action="store_false", help="exit after them")
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must not be negative, got {number}")
    return number


def _consume(settings: ConsumerSettings) -> int:
    output = Output(sys.stdout.fileno())
    with contextlib.redirect_stdout(cast(TextIO, output)):  # facts and events share it, and neither may wait for its reader for ever
        configure_logs("consumer", settings.log_level)
    try:
        drained = uvloop.run(_run(settings, output, tracing_or_exit("consumer")))
        status = 0
    except (LogInUse, OSError) as error:
        structlog.get_logger().error("the consumer cannot start", reason=str(error))
        print(f"consumer: {error}", file=sys.stderr)
        drained, status = True, 1
    output.close()
    if not drained:
        os._exit(status)  # the thread that writes hangs on the disk, and Python would wait for it for ever
    return status


async def _run(settings: ConsumerSettings, output: Output, tracing: Tracing | None) -> bool:
    worker = Worker(_options(settings), output, tracing)
    metrics = WorkerMetrics(worker)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.stop)
    runner = web.AppRunner(create_app(worker, metrics), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, settings.host, settings.port, shutdown_timeout=1.0).start()
        structlog.get_logger().info("status port open", address=runner.addresses[0][:2], source=_options(settings).source.name)
        with metrics.loop_lag.watch():
            return await worker.run()
    finally:
        await runner.cleanup()
        if tracing is not None:
            await tracing.close()


def _options(settings: ConsumerSettings) -> WorkerOptions:
    source = SourceOptions(
        url=settings.source_url,
        method=settings.source_method,
        body=settings.source_body,
        headers=settings.headers(),
        read_timeout_seconds=settings.read_timeout_seconds,
        max_block_bytes=settings.max_block_bytes,
        reconnect_initial_seconds=settings.reconnect_initial_seconds,
        reconnect_maximum_seconds=settings.reconnect_maximum_seconds,
    )
    return WorkerOptions(
        source,
        settings.log_dir,
        Rotation(settings.segment_max_bytes, settings.segment_max_age_seconds, SYNC_SECONDS if settings.sync == "interval" else 0.0),
        Retention(settings.retain_max_bytes, settings.retain_max_age_seconds),
        repeat_window=settings.repeat_window,
        gaps_from_ids=settings.gaps_from_ids,
        drain_seconds=settings.drain_seconds,
    )


if __name__ == "__main__":
    sys.exit(main())
