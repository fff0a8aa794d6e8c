"""`python -m gateway`: serves until SIGTERM or SIGINT, then drains and exits 0."""

import argparse
import asyncio
import gc
import resource
import signal
import sys

import uvloop

from service.logs import configure_logs
from service.settings import parse_arguments, settings_or_exit

from .app import run_gateway
from .routes import RouteError, RouteTable, read_routes, single_route
from .settings import Settings


async def _serve(settings: Settings, routes: RouteTable) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with run_gateway(settings, routes) as gateway:
        await stop.wait()
        await gateway.drain()


def main() -> None:
    """Reads the settings and serves; exits 2 when they make no sense, 1 when a port cannot be had."""
    parser = argparse.ArgumentParser("python -m gateway", description="Proxies HTTP, and re-streams event streams block by block.")
    parse_arguments(parser, Settings)
    settings = settings_or_exit(Settings)
    try:
        routes = read_routes(settings.config) if settings.config else single_route(settings.upstream)
    except RouteError as error:
        print(f"gateway: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    configure_logs("gateway", settings.log_level)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # two descriptors a stream
    try:
        gc.freeze()  # what is there now stays; the collector need not look at it again and again
        gc.set_threshold(5_000, 20, 50)
        uvloop.run(_serve(settings, routes))
    except OSError as error:
        print(f"gateway: {error}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
