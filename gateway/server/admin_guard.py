"""Protect the admin port, which does not authenticate callers, from web pages in the operator's browser."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from ..http.problems import problem
from ..observe.dashboard.tail import STOP_PATH
from ..policy.admin_hosts import AdminHosts

_ASKING = frozenset(("GET", "HEAD"))
_STOP = web.DynamicResource(STOP_PATH).canonical
_NO_PAGE = ("", "none")  # Sec-Fetch-Site without a browser, or from its user
_MOST_CHARS = 200
_REFUSED = (
    "web pages may not change anything; use curl, or SIGHUP to reload the routes. Only this port's own page may stop a kept answer, in a "
    "browser that sends Sec-Fetch-Site: a current one, with the page at localhost, 127.0.0.1 or over HTTPS"
)

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def admin_application(hosts: AdminHosts) -> web.Application:
    """Return an application that rejects names outside `hosts` (421), and changes requested by web pages (403)."""

    @web.middleware
    async def guard(request: web.Request, handler: _Handler) -> web.StreamResponse:
        host = request.headers.get("Host", "")  # empty: no browser
        if not hosts.allow(host):
            return problem(421, _explain(host))
        if request.method not in _ASKING and _is_of_a_page(request) and not (_is_for_own_pages(request) and _is_of_an_own_page(request)):
            return problem(403, _REFUSED)
        return await handler(request)

    return web.Application(middlewares=[guard])


def _explain(host: str) -> str:
    return (
        f"the host name {host[:_MOST_CHARS]!r} is not allowed: its owner could read this port with a web page in your browser. Allowed are "
        "IP addresses, localhost, *.localhost, names without dots, and those in GATEWAY_ADMIN_HOSTS; add the name there if it is yours"
    )


def _is_of_a_page(request: web.Request) -> bool:
    return "Origin" in request.headers or request.headers.get("Sec-Fetch-Site", "") not in _NO_PAGE


def _is_for_own_pages(request: web.Request) -> bool:
    """Whether this port's own pages may send the request: the dashboard stops kept answers."""
    resource = request.match_info.route.resource
    return resource is not None and resource.canonical == _STOP


def _is_of_an_own_page(request: web.Request) -> bool:
    """Whether a page of this port sends the request, as the browser says in two fields that no page can set.

    `Host` alone is no proof: it is the same for a page of a name that points here. Such names were refused before.
    """
    host, origin = request.headers.get("Host", ""), request.headers.get("Origin", "")
    own = host != "" and origin.lower() in (f"http://{host}".lower(), f"https://{host}".lower())
    return own and request.headers.get("Sec-Fetch-Site", "") == "same-origin"
