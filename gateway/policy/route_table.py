"""The table of routes: read it from a TOML file, and find the route of a path."""

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from .cors import Cors
from .errors import describe
from .routes import Route, is_below


class RouteError(ValueError):
    """The routes are invalid. The message names file, route and key, and what is allowed."""


@dataclass(frozen=True, init=False)
class RouteTable:
    """Find the route of a path: the longest matching prefix. Raises RouteError if there is no route, or a path twice."""

    routes: tuple[Route, ...]
    """The routes, longest prefix first."""

    def __init__(self, routes: Iterable[Route]) -> None:
        longest_first = tuple(sorted(routes, key=lambda route: len(route.path), reverse=True))
        paths = [route.path for route in longest_first]
        for path in paths:
            if paths.count(path) > 1:
                raise RouteError(f"each route needs its own path, got {path!r} twice")
        if not paths:
            raise RouteError("no routes: at least one [[routes]] table with path and upstream is needed")
        object.__setattr__(self, "routes", longest_first)

    @cached_property
    def by_path(self) -> Mapping[str, Route]:
        """The routes by their path prefix."""
        return {route.path: route for route in self.routes}

    @cached_property
    def guarded(self) -> bool:
        """Whether any route authenticates clients, so that gateway and upstream must agree on a path's route."""
        return any(route.auth is not None and route.auth.kind != "none" for route in self.routes)

    def cors_of_streams(self, origin: str, path: str | None = None) -> Cors | None:
        """Return the CORS table for answers about a kept stream of the route `path`, None if there is none.

        An unknown stream has no route, so `path` is None: then return any resumable route's table that allows `origin`.
        """
        if path is not None:
            return self.by_path[path].cors if path in self.by_path else None
        tables = (route.cors for route in self.routes if route.mode == "resumable" and route.cors is not None)
        return next((cors for cors in tables if cors.allows(origin)), None)

    def key_urls(self) -> Iterator[str]:
        """Return the URLs of token issuers' keys."""
        return (route.auth.jwks_url for route in self.routes if route.auth is not None and route.auth.jwks_url)

    def subject_fields(self, route: Route) -> frozenset[str]:
        """Return the header fields, in lower case, that name the subject to the upstream of `route`, on any route to its origin."""
        origin = route.upstream_origin
        return frozenset(
            each.auth.subject_header.lower()
            for each in self.routes
            if each.auth is not None and each.auth.subject_header and each.upstream_origin == origin
        )

    def reuse(self, old: "RouteTable") -> "RouteTable":
        """Return this table with the equal routes of `old` in place of its own: connections are kept for their TLS contexts."""
        before = old.by_path
        return RouteTable(before[route.path] if before.get(route.path) == route else route for route in self.routes)

    def find(self, path: str) -> Route | None:
        """Return the route of `path` (percent-encoded, without query), None if there is none."""
        for route in self.routes:
            if route.matches(path):
                return route
        return None

    def find_ignoring_case(self, path: str) -> Route | None:
        """Return the route of `path` as seen by an upstream that ignores case.

        Of two routes that differ only in case, return the one that `find` returns.
        """
        lower = path.lower()
        found = next((route for route in self.routes if is_below(lower, route.lower_path)), None)
        exact = self.find(path)
        return exact if exact is not None and found is not None and exact.lower_path == found.lower_path else found


@dataclass(slots=True, eq=False)
class Routes:
    """The routes of a running gateway. A reload swaps the table."""

    current: RouteTable

    def route_of(self, path: str) -> Route:
        """Return the route with exactly this path prefix, or a route with defaults if it is gone."""
        return self.current.by_path.get(path) or Route.without_upstream(path)


@dataclass(frozen=True, slots=True)
class RouteChanges:
    """Paths of the routes that differ, sorted."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    @classmethod
    def between(cls, old: RouteTable, new: RouteTable) -> Self:
        """Compare two tables. A route has also changed if the value of a secret that it names has."""
        before, after = old.by_path, new.by_path
        changed = (path for path in before.keys() & after.keys() if before[path] != after[path])
        return cls(tuple(sorted(after.keys() - before.keys())), tuple(sorted(before.keys() - after.keys())), tuple(sorted(changed)))


def read_routes(file: Path, upstream: str = "") -> RouteTable:
    """Read the `[[routes]]` of a TOML file. Routes without an upstream get `upstream`, unless it is empty.

    Raises RouteError if the file is unreadable or invalid. It names file, line or key, the value, and what is allowed.
    """
    try:
        document = tomllib.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:  # not UTF-8, not TOML, a number of thousands of digits
        raise RouteError(f"{file}: {error}") from error
    except RecursionError as error:
        raise RouteError(f"{file}: arrays or tables are nested too deeply") from error
    unknown = sorted(set(document) - {"routes"})
    if unknown:
        raise RouteError(f"{file}: unknown key {unknown[0]!r}; the only key allowed is routes")
    tables = document.get("routes", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise RouteError(f"{file}: routes must be an array of tables, written [[routes]]")
    try:
        return routes_of(({"upstream": upstream} if upstream else {}) | table for table in tables)
    except RouteError as error:
        raise RouteError(f"{file}: {error}") from error


def routes_of(tables: Iterable[dict[str, Any]]) -> RouteTable:
    """Return the routes of `[[routes]]` tables. Raises RouteError if they are invalid."""
    return RouteTable(_read_route(table, number) for number, table in enumerate(tables, 1))


def single_route(upstream: str) -> RouteTable:
    """Return a table with one route that sends every path to `upstream`. Raises RouteError if `upstream` is not a valid URL."""
    return routes_of([{"path": "/", "upstream": upstream}])


def _read_route(table: dict[str, Any], number: int) -> Route:
    try:
        return Route(**table)
    except ValidationError as error:
        raise RouteError("; ".join(describe(problem, number, table, Route) for problem in error.errors())) from error
