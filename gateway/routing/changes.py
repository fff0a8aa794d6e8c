"""In what two tables of routes differ."""

from dataclasses import dataclass
from typing import Self

from .route_table import RouteTable


@dataclass(frozen=True, slots=True)
class RouteChanges:
    """The paths of routes, in order."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    @classmethod
    def between(cls, old: RouteTable, new: RouteTable) -> Self:
        """Compares; a route has changed too when a secret that it names has."""
        before, after = ({route.path: route for route in table.routes} for table in (old, new))
        changed = (path for path in before.keys() & after.keys() if before[path] != after[path])
        return cls(tuple(sorted(after.keys() - before.keys())), tuple(sorted(before.keys() - after.keys())), tuple(sorted(changed)))
