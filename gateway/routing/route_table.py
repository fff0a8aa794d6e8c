"""The table of routes: which route serves a path; read from a TOML file."""

import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..auth.key_sets import KeySource
from ..cors import Cors
from .errors import describe
from .routes import Route, is_below


class RouteError(ValueError):
    """The routes make no sense; the message names file, route and key, and says what is allowed."""


class RouteTable:
    """Finds the route of a path: the longest matching prefix.

    `replace` lets whoever holds the table find other routes from then on.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(sorted(routes, key=lambda route: len(route.path), reverse=True))
        """Longest prefix first."""
        paths = [route.path for route in self.routes]
        for path in paths:
            if paths.count(path) > 1:
                raise RouteError(f"two routes have the path {path!r}")
        if not paths:
            raise RouteError("there is no route; at least one [[routes]] table with path and upstream is needed")
        self._note_guards()

    def _note_guards(self) -> None:
        self.guarded = any(route.auth is not None and route.auth.kind != "none" for route in self.routes)
        """Whether a route authenticates its clients, so that it matters which route an upstream takes a path for."""

    def route_of(self, path: str) -> Route:
        """Gives the route with this very path prefix; one with defaults when it is gone."""
        gone = Route.model_validate({"path": path, "upstream": "http://gone.invalid", "mode": "resumable"})
        return next((route for route in self.routes if route.path == path), gone)

    def cors_of_streams(self, origin: str, path: str | None = None) -> Cors | None:
        """Gives what holds for answers about a kept stream of the route `path`; without one, as nobody knows the route of a stream that
        is not there, a table that lets pages of `origin` read. None when there is none."""
        if path is not None:
            return next((route.cors for route in self.routes if route.path == path), None)
        tables = (route.cors for route in self.routes if route.mode == "resumable" and route.cors is not None)
        return next((cors for cors in tables if cors.allows(origin)), None)

    def key_sources(self) -> Iterator[KeySource]:
        """Gives where the keys of token issuers come from."""
        return (route.auth.key_source for route in self.routes if route.auth is not None and route.auth.key_source is not None)

    def subject_fields(self, route: Route) -> frozenset[str]:
        """Return the fields that tell the upstream of `route` who asks, on this or another route to its origin; in lower case."""
        origin = route.upstream_origin
        return frozenset(
            each.auth.subject_header.lower()
            for each in self.routes
            if each.auth is not None and each.auth.subject_header and each.upstream_origin == origin
        )

    def replace(self, other: "RouteTable") -> None:
        """Takes the routes of another table; those that are equal stay the same objects."""
        mine = {route.path: route for route in self.routes}
        self.routes = tuple(mine[route.path] if mine.get(route.path) == route else route for route in other.routes)
        self._note_guards()

    def find(self, path: str) -> Route | None:
        """Gives the route of `path` (percent-encoded, without query), None when there is none."""
        for route in self.routes:
            if route.matches(path):
                return route
        return None

    def find_ignoring_case(self, path: str) -> Route | None:
        """Return the route that an upstream which ignores case takes `path` for.

        Of two routes that differ only in case it is the one that `find` gives.
        """
        lower = path.lower()
        found = next((route for route in self.routes if is_below(lower, route.lower_path)), None)
        exact = self.find(path)
        return exact if exact is not None and found is not None and exact.lower_path == found.lower_path else found


def read_routes(file: Path, upstream: str = "") -> RouteTable:
    """Reads the `[[routes]]` of a TOML file; those without an upstream get `upstream`, unless it is empty.

    Raises RouteError, which says file, line or key, what was got and what is allowed.
    """
    try:
        document = tomllib.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:  # not UTF-8, not TOML, a number of thousands of digits
        raise RouteError(f"{file}: {error}") from error
    except RecursionError as error:
        raise RouteError(f"{file}: arrays or tables are nested too deeply") from error
    unknown = sorted(set(document) - {"routes"})
    if unknown:
        raise RouteError(f"{file}: unknown key {unknown[0]!r}, allowed is routes")
    tables = document.get("routes", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise RouteError(f"{file}: routes must be an array of tables, written [[routes]]")
    try:
        return routes_of(({"upstream": upstream} if upstream else {}) | table for table in tables)
    except RouteError as error:
        raise RouteError(f"{file}: {error}") from error


def routes_of(tables: Iterable[dict[str, Any]]) -> RouteTable:
    """Gives the routes that stand in `[[routes]]` tables. Raises RouteError."""
    return RouteTable(_read_route(table, number) for number, table in enumerate(tables, 1))


def single_route(upstream: str) -> RouteTable:
    """Gives the table with one route that sends everything to `upstream`, all else at its default.

    Raises RouteError.
    """
    return routes_of([{"path": "/", "upstream": upstream}])


def _read_route(table: dict[str, Any], number: int) -> Route:
    try:
        return Route(**table)
    except ValidationError as error:
        raise RouteError("; ".join(describe(problem, number, table, Route) for problem in error.errors())) from error
