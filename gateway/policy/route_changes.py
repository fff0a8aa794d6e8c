"""Compare two tables of routes."""

from dataclasses import dataclass
from typing import Self

from .route_table import RouteTable


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
