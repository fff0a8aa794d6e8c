"""Commands of `python -m gateway`: `check` validates settings and routes without a start, `hash-key` makes an API key."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from service.settings import parse_arguments, settings_or_exit

from ..policy.route_table import RouteError, RouteTable, read_routes, single_route
from ..policy.secrets import SecretError, digest_of, make_api_key, read_api_key
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


def hash_key(arguments: Sequence[str]) -> int:
    """Print a `[[routes.auth.keys]]` table on standard output and a new key on standard error. Return the exit status."""
    about = "Make an API key. Give the key to its holder; put the table, which has only the key's SHA-256, into the routes file."
    parser = argparse.ArgumentParser("python -m gateway hash-key", description=about)
    parser.add_argument("name", help="name of the key's holder")
    parser.add_argument("--stdin", action="store_true", help="read an existing key from standard input")
    asked = parser.parse_args(arguments)
    if asked.stdin:
        try:
            digest = read_api_key(sys.stdin.buffer.readline())
        except SecretError as error:
            print(f"gateway hash-key: {error}", file=sys.stderr)
            return 2
    else:
        key = make_api_key()
        digest = digest_of(key)
        print(f"the key, shown only once: {key}", file=sys.stderr)
    print(f"[[routes.auth.keys]]\nname = {json.dumps(asked.name, ensure_ascii=False)}\nsha256 = {json.dumps(digest)}")
    return 0
