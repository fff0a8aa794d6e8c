"""`python -m producer`: serves until SIGTERM or Ctrl-C, drains, and exits with status 0."""

import argparse
import asyncio
import signal
import sys
from types import FrameType

import uvloop

from service.logs import configure_logs
from service.settings import parse_arguments, settings_or_exit

from .app import create_app
from .demo import publish_demo
from .drain import Drain
from .event_log import LogError
from .server import Server
from .settings import Settings
from .sqlite_log import SqliteEventLog


def main() -> None:
    """Runs the producer. Exit status: 0 after a drain, 2 for settings that make no sense, 3 when it cannot listen or cannot open
    its event log."""
    parser = argparse.ArgumentParser(prog="python -m producer", description="Streams text, event by event, over HTTP.")
    parse_arguments(parser, Settings)
    settings = settings_or_exit(Settings)
    configure_logs("producer", settings.log_level)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit)  # uvicorn puts its own handlers in front, and raises the signal again when it has drained
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    try:
        log = await SqliteEventLog.open(settings.log_dir)
    except (LogError, OSError) as error:
        print(f"producer: {error}", file=sys.stderr)
        raise SystemExit(3) from None
    async with log:
        drain = Drain()
        server = Server(
            create_app(settings, drain, log),
            drain,
            host=settings.host,
            port=settings.port,
            send_timeout_seconds=settings.send_timeout_seconds,
            drain_seconds=settings.drain_seconds,
        )
        demo = asyncio.create_task(publish_demo(log, drain)) if settings.demo else None
        try:
            await server.serve()
        finally:
            drain.begin()  # it has begun, unless the server could not start
            if demo is not None:
                await demo


def _exit(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


if __name__ == "__main__":
    main()
