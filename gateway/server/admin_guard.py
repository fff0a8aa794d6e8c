"""Protect the admin port, which does not authenticate callers, from web pages in the operator's browser."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from ..http.problems import problem
from ..policy.admin_hosts import AdminHosts

_ASKING = frozenset(("GET", "HEAD"))
_NO_PAGE = ("", "none")  # Sec-Fetch-Site without a browser, or from its user
_MOST_CHARS = 200

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


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
