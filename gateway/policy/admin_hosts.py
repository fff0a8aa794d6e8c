"""Protect the admin port, which does not authenticate callers, from web pages in the operator's browser."""

import ipaddress
import re
from collections.abc import Awaitable, Callable

from aiohttp import web

from ..http.problems import problem

_AUTHORITY = re.compile(r"(?:\[(?P<ipv6>[^\]]*)\]|(?P<name>[A-Za-z0-9._-]*))(?::\d*)?")
_NAME = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")
_ASKING = frozenset(("GET", "HEAD"))
_NO_PAGE = ("", "none")  # Sec-Fetch-Site without a browser, or from its user
_MOST_CHARS = 200

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


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


def admin_application(hosts: AdminHosts) -> web.Application:
    """Return an application that rejects names outside `hosts` (421), and changes requested by web pages (403)."""

    @web.middleware
    async def guard(request: web.Request, handler: _Handler) -> web.StreamResponse:
        host = request.headers.get("Host", "")  # empty: no browser
        if not hosts.allow(host):
            return problem(421, _explain(host))
        if request.method not in _ASKING and _is_of_a_page(request):
            return problem(403, "web pages may not change anything, not even this port's own; use curl, or SIGHUP to reload the routes")
        return await handler(request)

    return web.Application(middlewares=[guard])


def _explain(host: str) -> str:
    return (
        f"the host name {host[:_MOST_CHARS]!r} is not allowed: its owner could read this port with a web page in your browser. Allowed are "
        "IP addresses, localhost, *.localhost, names without dots, and those in GATEWAY_ADMIN_HOSTS; add the name there if it is yours"
    )


def _is_of_a_page(request: web.Request) -> bool:
    return "Origin" in request.headers or request.headers.get("Sec-Fetch-Site", "") not in _NO_PAGE


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
