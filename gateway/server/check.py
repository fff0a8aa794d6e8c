"""Run `python -m gateway check`: validate settings and routes without starting the gateway."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from service.settings import parse_arguments, settings_or_exit

from ..policy.route_table import RouteError, RouteTable, read_routes, single_route
from ..policy.settings import Settings


def read_routes_of(settings: Settings) -> RouteTable:
    """Return the routes of a gateway with these settings. Raises RouteError if they are wrong."""
    return read_routes(settings.config, settings.upstream) if settings.config else single_route(settings.upstream)


def check(arguments: Sequence[str]) -> int:
    """Print the routes, or the error that a start would give. Return the exit status, 2 on an error."""
    parser = argparse.ArgumentParser("python -m gateway check", description="Check settings and routes without starting the gateway.")
    parser.add_argument("file", nargs="?", type=Path, help="the routes file; default GATEWAY_CONFIG")
    file = parse_arguments(parser, Settings, arguments).file
    settings = settings_or_exit(Settings)
    if file is not None:
        settings = settings.model_copy(update={"config": file})
    try:
        routes = read_routes_of(settings).routes
    except RouteError as error:
        print(f"gateway: {error}", file=sys.stderr)
        return 2
    for route in sorted(routes, key=lambda route: route.path):
        print(route.path, route.mode, route.upstream, sep="\t")
    return 0
