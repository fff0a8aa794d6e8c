"""Find a request's credential, and remove it from the request."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import unquote_plus

from aiohttp import web

from ..http.incoming import Incoming
from ..policy.auth_table import Auth

_BEARER = re.compile(r"bearer[ \t]+(\S+)[ \t]*", re.IGNORECASE)
_API_KEY_FIELD = "X-API-Key"


class AmbiguousCredentials(ValueError):
    """The request has several credentials in one place, which the message names."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A credential as received."""

    text: str
    """The credential, empty if there is none."""
    by_cookie: bool = False
    """Whether it came in a cookie, which a browser also sends for pages of other origins."""


def cut_parameter(target: str, name: str) -> tuple[str, list[str]]:
    """Return `target` without the query parameter `name` in any spelling, and the parameter's values."""
    path, mark, query = target.partition("?")
    if not name or not mark:
        return target, []
    kept, values = [], []
    for parameter in query.split("&"):
        spelled, _, value = parameter.partition("=")
        if unquote_plus(spelled) == name:
            values.append(unquote_plus(value))
        else:
            kept.append(parameter)
    if not values:
        return target, []
    return f"{path}?{'&'.join(kept)}" if kept else path, values


def find_credential(request: Incoming, auth: Auth, parameters: Collection[str]) -> Credential:
    """Return the credential of a request: from a header field, else from `parameters` of the query, else from the cookie.

    Raises AmbiguousCredentials if one of these has several.
    """
    given = {match[1] for value in request.headers.getall("Authorization", ()) if (match := _BEARER.fullmatch(value))}
    if auth.kind == "api-keys":
        given.update(request.headers.getall(_API_KEY_FIELD, ()))
    cookies = set(_cut_cookie(request, auth.cookie)[1]) if auth.cookie else set()
    for place, found in (("header fields", given), ("query parameters", set(parameters)), ("cookies", cookies)):
        found.discard("")
        if len(found) > 1:
            raise AmbiguousCredentials(f"several credentials in the {place}; send one")
        if found:
            return Credential(found.pop(), by_cookie=place == "cookies")
    return Credential("")


def forget_credential(request: Incoming, auth: Auth) -> None:
    """Remove the gateway's credential from a request's header fields. Credentials of another kind stay."""
    if any(_BEARER.fullmatch(value) for value in request.headers.getall("Authorization", ())):
        request.forget("Authorization")
    if auth.kind == "api-keys":
        request.forget(_API_KEY_FIELD)
    if auth.cookie:
        rest, values = _cut_cookie(request, auth.cookie)
        if values and rest:
            request.set_field("Cookie", rest)
        elif values:
            request.forget("Cookie")


def is_from_own_pages(request: web.BaseRequest, allowed: Collection[str]) -> bool:
    """Return whether a browser sent the request for a page of the gateway's own origin or of an allowed one.

    `Sec-Fetch-Site` decides, or `Origin` for browsers that do not send it. A request with neither does not qualify.
    """
    headers = request.headers
    origin = headers.get("Origin", "")
    if origin and origin in allowed:
        return True
    site = headers.get("Sec-Fetch-Site", "")
    if site:
        return site == "same-origin" or (site == "none" and request.method in ("GET", "HEAD"))
    host = (headers.get("X-Forwarded-Host", "") or headers.get("Host", "")).lower()  # X-Forwarded-Host remains only from trusted proxies
    return bool(host) and origin in (f"https://{host}", f"http://{host}")


def _cut_cookie(request: web.BaseRequest, name: str) -> tuple[str, list[str]]:
    """Return the Cookie field without one cookie, and that cookie's values."""
    kept, values = [], []
    for field in request.headers.getall("Cookie", ()):
        for pair in field.split(";"):
            spelled, _, value = pair.strip().partition("=")
            if spelled.strip() == name:
                values.append(value.strip().strip('"'))
            elif pair.strip():
                kept.append(pair.strip())
    return "; ".join(kept), values
