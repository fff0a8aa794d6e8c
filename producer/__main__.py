"""`python -m producer`: serves until SIGTERM or Ctrl-C, drains, and exits with status 0."""

import argparse
import signal
from types import FrameType

from service.logs import configure_logs
from service.settings import parse_arguments, settings_or_exit

from .app import create_app
from .drain import Drain
from .server import Server
from .settings import Settings


def main() -> None:
    """Runs the producer. Exit status: 0 after a drain, 2 for settings that make no sense, 3 when it cannot listen."""
    parser = argparse.ArgumentParser(prog="python -m producer", description="Streams text, event by event, over HTTP.")
    parse_arguments(parser, Settings)
    settings = settings_or_exit(Settings)
    configure_logs("producer", settings.log_level)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit)  # uvicorn puts its own handlers in front, and raises the signal again when it has drained
    drain = Drain()
    Server(
        create_app(settings, drain),
        drain,
        host=settings.host,
        port=settings.port,
        send_timeout_seconds=settings.send_timeout_seconds,
        drain_seconds=settings.drain_seconds,
    ).run()


def _exit(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


if __name__ == "__main__":
    main()
