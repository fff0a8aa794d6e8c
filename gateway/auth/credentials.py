"""Where a request has its credential, and what the request is without it."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import unquote_plus

from aiohttp import web

from ..incoming import Incoming
from .table import Auth

_BEARER = re.compile(r"bearer[ \t]+(\S+)[ \t]*", re.IGNORECASE)
_API_KEY_FIELD = "X-API-Key"


class CredentialsUnclear(ValueError):
    """The request has several credentials in one place; the message says where."""


@dataclass(frozen=True, slots=True)
class Presented:
    """A credential as it came."""

    text: str
    """Empty when there is none."""
    by_cookie: bool = False
    """Whether a browser may have sent it by itself, for a page of any origin."""


def cut_parameter(target: str, name: str) -> tuple[str, list[str]]:
    """Gives `target` without the query parameter `name`, however that is spelled, and the values it had."""
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


def find_credential(request: Incoming, auth: Auth, parameters: Collection[str]) -> Presented:
    """Gives the credential of a request: from a header field, else from `parameters` of the query, else from the cookie.

    Raises CredentialsUnclear when one of these has several.
    """
    given = {match[1] for value in request.headers.getall("Authorization", ()) if (match := _BEARER.fullmatch(value))}
    if auth.kind == "api-keys":
        given.update(request.headers.getall(_API_KEY_FIELD, ()))
    cookies = set(_cut_cookie(request, auth.cookie)[1]) if auth.cookie else set()
    for place, found in (("header fields", given), ("query parameters", set(parameters)), ("cookies", cookies)):
        found.discard("")
        if len(found) > 1:
            raise CredentialsUnclear(f"there are several credentials in the {place}; send one")
        if found:
            return Presented(found.pop(), by_cookie=place == "cookies")
    return Presented("")


def forget_credential(request: Incoming, auth: Auth) -> None:
    """Takes what is meant for the gateway out of a request's header fields; credentials of another kind stay."""
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
    """Tells whether the browser says that the request is of a page of the gateway's own origin or of one that is allowed.

    `Sec-Fetch-Site` says it, and browsers that do not send it name the page's `Origin`. Who says nothing is not believed.
    """
    headers = request.headers
    origin = headers.get("Origin", "")
    if origin and origin in allowed:
        return True
    site = headers.get("Sec-Fetch-Site", "")
    if site:
        return site == "same-origin" or (site == "none" and request.method in ("GET", "HEAD"))
    host = (
        headers.get("X-Forwarded-Host", "") or headers.get("Host", "")
    ).lower()  # the former is there only from proxies that are trusted
    return bool(host) and origin in (f"https://{host}", f"http://{host}")


def _cut_cookie(request: web.BaseRequest, name: str) -> tuple[str, list[str]]:
    """Gives the Cookie field without one cookie, and the values that had."""
    kept, values = [], []
    for field in request.headers.getall("Cookie", ()):
        for pair in field.split(";"):
            spelled, _, value = pair.strip().partition("=")
            if spelled.strip() == name:
                values.append(value.strip().strip('"'))
            elif pair.strip():
                kept.append(pair.strip())
    return "; ".join(kept), values
