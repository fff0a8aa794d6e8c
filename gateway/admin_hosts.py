"""Keeps pages that its operator's browser has open away from the admin port, which asks nobody who he is."""

import ipaddress
import re
from collections.abc import Awaitable, Callable

from aiohttp import web

from .problems import problem

_AUTHORITY = re.compile(r"(?:\[(?P<ipv6>[^\]]*)\]|(?P<name>[A-Za-z0-9._-]*))(?::\d*)?")
_NAME = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")
_ASKING = frozenset(("GET", "HEAD"))
_NO_PAGE = ("", "none")  # of Sec-Fetch-Site: no browser, or whoever sits before it
_MOST_CHARS = 200

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class AdminHosts:
    """What the admin port may be called.

    Whoever owns a name can let it point to any address, that of the admin port too, and his page then is of the same origin as the
    admin port (DNS rebinding). An address, `localhost` and a name without dots are nobody's to own.
    """

    def __init__(self, names: frozenset[str] = frozenset()) -> None:
        self._names = names

    def __repr__(self) -> str:
        return f"<AdminHosts {', '.join(sorted(self._names)) or 'none'}>"

    @classmethod
    def parse(cls, text: str) -> "AdminHosts":
        """Reads names between commas, `*.example.org` for all that end so. Raises ValueError for what is none."""
        names = [part.strip().lower().removesuffix(".") for part in text.split(",") if part.strip()]
        for name in names:
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no host name like gateway.example.org or *.example.org; write it without scheme and port")
        return cls(frozenset(names))

    def allow(self, field: str) -> bool:
        """Tells whether a request with this `Host` is answered."""
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
    """Gives an application that refuses names which `hosts` does not allow (421), and pages that would change something (403)."""

    @web.middleware
    async def guard(request: web.Request, handler: _Handler) -> web.StreamResponse:
        host = request.headers.get("Host", "")  # none: no browser
        if not hosts.allow(host):
            return problem(421, _explain(host))
        if request.method not in _ASKING and _is_of_a_page(request):
            return problem(403, "pages may not change anything here, this port's own included; use curl, or SIGHUP to reload the routes")
        return await handler(request)

    return web.Application(middlewares=[guard])


def _explain(host: str) -> str:
    return (
        f"Host is {host[:_MOST_CHARS]!r}, and whoever owns that name could read this port with a page in your browser; allowed are IP "
        "addresses, localhost, *.localhost, names without dots, and those in GATEWAY_ADMIN_HOSTS: add the name there if it is yours"
    )


def _is_of_a_page(request: web.Request) -> bool:
    return "Origin" in request.headers or request.headers.get("Sec-Fetch-Site", "") not in _NO_PAGE


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
