"""Host names under which the admin port answers."""

import ipaddress
import re

_AUTHORITY = re.compile(r"(?:\[(?P<ipv6>[^\]]*)\]|(?P<name>[A-Za-z0-9._-]*))(?::\d*)?")
_NAME = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")


class AdminHosts:
    """Host names under which the admin port may be requested.

    An attacker can point a name to the admin port's address, so that the attacker's page has the same origin as the admin port (DNS
    rebinding). Addresses, `localhost` and names without dots cannot be taken over like this.
    """

    def __init__(self, names: frozenset[str] = frozenset()) -> None:
        self._names = names

    def __repr__(self) -> str:
        return f"<AdminHosts {', '.join(sorted(self._names)) or 'none'}>"

    @classmethod
    def parse(cls, text: str) -> "AdminHosts":
        """Parse comma-separated names, `*.example.org` for all subdomains. Raises ValueError if a part is not a host name."""
        names = [part.strip().lower().removesuffix(".") for part in text.split(",") if part.strip()]
        for name in names:
            if not _NAME.fullmatch(name):
                raise ValueError(f"must be host names such as gateway.example.org or *.example.org, without scheme and port; got {name!r}")
        return cls(frozenset(names))

    def allow(self, field: str) -> bool:
        """Return whether a request with this `Host` is answered."""
        authority = _AUTHORITY.fullmatch(field)
        if authority is None:
            return False
        if authority["ipv6"] is not None:
            return _is_address(authority["ipv6"])
        name = authority["name"].lower().removesuffix(".")
        if "." not in name or name.endswith(".localhost") or name in self._names or _is_address(name):
            return True
        return any(f"*{name[at:]}" in self._names for at, character in enumerate(name) if character == ".")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
