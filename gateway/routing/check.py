"""`python -m gateway check`: whether the gateway would start with these settings and routes."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from service.settings import parse_arguments, settings_or_exit

from ..settings import Settings
from .route_table import RouteError, RouteTable, read_routes, single_route


def read_routes_of(settings: Settings) -> RouteTable:
    """Gives the routes that a gateway with these settings has. Raises RouteError."""
    return read_routes(settings.config, settings.upstream) if settings.config else single_route(settings.upstream)


def check(arguments: Sequence[str]) -> int:
    """Says what is wrong, as the start would; gives the exit status, 2 when something is."""
    parser = argparse.ArgumentParser("python -m gateway check", description="Checks settings and routes, and starts nothing.")
    parser.add_argument("file", nargs="?", type=Path, help="a file of routes; that of GATEWAY_CONFIG when it is missing")
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
