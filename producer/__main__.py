"""`python -m producer`: serve until SIGTERM or Ctrl-C, drain, exit with status 0. `python -m producer check`: check an event log."""

import argparse
import asyncio
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from types import FrameType

from service.event_loop import run
from service.logs import configure_logs
from service.settings import parse_arguments, settings_or_exit
from service.tracing import Tracing, tracing_or_exit

from .app import create_app
from .log.check import check
from .log.event_log import LogError
from .log.retention import Retention
from .log.sqlite_log import SqliteEventLog
from .settings import Settings
from .topics.demo import publish_demo
from .web.drain import Drain
from .web.meters import Meters
from .web.server import Server

_GARBAGE_THRESHOLD = 10_000
"""With Python's 700 the collector takes a quarter of the time while 3,000 streams are opened."""


def main() -> None:
    """Run the producer. The exit status is 0 after a drain, 2 for invalid settings, 3 when it cannot listen or open its event log."""
    asked = parse_arguments(_parser(), Settings)
    settings = settings_or_exit(Settings)
    if asked.command == "check":
        raise SystemExit(check(asked.directory or settings.log_dir))
    configure_logs("producer", settings.log_level)
    tracing = tracing_or_exit("producer")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit)  # uvicorn installs its own handlers, and raises the signal again after the drain
    run(_serve(settings, tracing), _GARBAGE_THRESHOLD)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m producer", description="Stream text, and publish and subscribe to events of topics, over HTTP."
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="without a command: serve; commands")
    audit = commands.add_parser("check", help="check an event log; the exit status is 0 only if it is clean", description=check.__doc__)
    audit.add_argument("directory", type=Path, nargs="?", metavar="DIR", help="the directory of the log (default: PRODUCER_LOG_DIR)")
    return parser


def _open_log(settings: Settings) -> Coroutine[None, None, SqliteEventLog]:
    return SqliteEventLog.open(
        settings.log_dir,
        sync=settings.log_sync,
        retention=Retention(settings.retain_max_age_seconds, settings.retain_max_events, settings.retain_max_bytes),
        key_retention_seconds=settings.idempotency_seconds,
    )


async def _serve(settings: Settings, tracing: Tracing | None) -> None:
    try:
        log = await _open_log(settings)
    except (LogError, OSError) as error:
        print(f"producer: {error}", file=sys.stderr)
        raise SystemExit(3) from None
    async with log:
        drain, meters = Drain(), Meters()
        server = Server(
            create_app(settings, drain, log, meters, tracing),
            drain,
            host=settings.host,
            port=settings.port,
            send_timeout_seconds=settings.send_timeout_seconds,
            drain_seconds=settings.drain_seconds,
        )
        demo = asyncio.create_task(publish_demo(log, drain)) if settings.demo else None
        try:
            with meters.loop_lag.watch():
                await server.serve()
        finally:
            drain.begin()  # it has already begun, unless the server could not start
            if demo is not None:
                await demo
            if tracing is not None:
                await tracing.close()


def _exit(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


if __name__ == "__main__":
    main()
