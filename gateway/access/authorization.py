"""Authorize requests: check a request's credential before anything else is done for it."""

import contextlib
import hashlib
import hmac
import json
import math
import re
from typing import Any
from urllib.parse import quote

from aiohttp import web

from ..http.incoming import Incoming
from ..http.problems import problem
from ..policy.auth_table import Auth
from ..policy.caller import Caller
from ..policy.grants import GrantError, Grants
from ..policy.paths import all_readings
from ..policy.refusal import Reason, Refusal
from ..policy.route_table import Routes, RouteTable
from ..policy.routes import Route
from ..policy.secrets import digest_of
from ..policy.tokens import TokenRefused, read_head, verify
from .credentials import AmbiguousCredentials, Credential, cut_parameter, find_credential, forget_credential, is_from_own_pages
from .exchange import Exchange
from .expiry import end_at_expiry
from .key_sets import KeySets, KeysUnavailable

_VISIBLE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != "%")
_NOT_DESCRIPTION = re.compile(r"[^\x20-\x21\x23-\x5b\x5d-\x7e]")
_MOST_CHARACTERS = 16 * 1024
_LAST_SECOND = 2**53  # larger numbers are no plausible time


class Denied(Exception):
    """A request is not authorized; `refusal` gives the reason."""

    def __init__(self, status: int, reason: Reason, detail: str, error: str = "", *, retry_after_seconds: float = 0.0) -> None:
        super().__init__(detail)
        self.refusal = Refusal(status, reason, detail)
        self._error = error
        self._retry_after_seconds = retry_after_seconds

    def answer(self, headers: dict[str, str] | None = None) -> web.Response:
        """Return the answer to the client, with `headers` and the challenge of RFC 6750 section 3."""
        status, reason, detail = self.refusal
        if self._retry_after_seconds:
            headers = {**(headers or {}), "Retry-After": str(math.ceil(self._retry_after_seconds))}
        if status != 401 and not self._error:
            return problem(status, detail, headers, reason)
        challenge = 'Bearer realm="gateway"'
        if self._error:
            description = _NOT_DESCRIPTION.sub("'", detail)
            challenge += f', error="{self._error}", error_description="{description}"'
        return problem(status, detail, {**(headers or {}), "WWW-Authenticate": challenge}, reason)


class Authorizer:
    """Authenticate requests, and authorize what their credential grants."""

    def __init__(self, key_sets: KeySets, routes: Routes) -> None:
        self._key_sets = key_sets
        self._routes = routes

    async def authorize(self, request: Incoming, route: Route | None, target: str) -> str:
        """Authorize a client's request and return `target` without credentials. Raises Denied if it is not authorized.

        Without a route the request names a kept stream: then identify the client for its limits, and authorize once the stream is found.
        """
        routes = self._routes.current
        if not routes.guarded:
            return target
        if _may_be_guarded_otherwise(routes, route, target.partition("?")[0]):
            detail = (
                "the path is ambiguous; send it without dot segments, double slashes and needless percent-encoding, "
                "in the letter case of the route"
            )
            raise Denied(400, "target", detail)
        if route is None:
            await self._recognize(request, target)
            return target
        _forget_subject(request, routes.subject_fields(route))
        return await self._admit(request, route, target) if route.auth is not None else target

    async def authorize_resumption(self, request: Incoming, exchange: Exchange, opened_by: tuple[str, str]) -> None:
        """Authorize the resumption of a kept stream by its route's current rules: the permission that opened a stream also resumes it.

        `opened_by` are method and target of the request that opened it.

        Raises Denied if it is not authorized.
        """
        route = self._routes.current.by_path.get(exchange.route.path)
        if route is None:
            if _guard(exchange.route) is not None:
                raise Denied(403, "forbidden", "the stream's route is gone, and its permissions with it")
            return
        exchange.target = await self._admit(request, route, exchange.target, opened_by)
        exchange.caller = request.caller
        if request.caller is not None and request.caller.expires_at and not exchange.handed_off:
            end_at_expiry(exchange, request.caller.expires_at)

    async def _recognize(self, request: Incoming, target: str) -> None:
        """Identify a client that resumes a kept stream, by the rules of each resumable route: any may own the stream."""
        tried: list[Auth] = []
        for route in self._routes.current.routes:
            auth = _guard(route) if route.mode == "resumable" else None
            if auth is None or auth in tried:
                continue
            tried.append(auth)
            with contextlib.suppress(Denied):  # without a match the client counts by its address
                presented, _ = _find_presented(request, route, auth, target)
                caller, _ = await self._identify(auth, presented)
                request.recognized = caller.subject
                return

    async def _admit(self, request: Incoming, route: Route, target: str, asked: tuple[str, str] | None = None) -> str:
        """Record the caller on the request and remove its credential. `asked` must be granted, by default the request itself."""
        auth = route.auth
        if auth is None or auth.kind == "none":
            return target
        presented, target = _find_presented(request, route, auth, target)
        caller, grants = await self._identify(auth, presented)
        if grants is not None and not grants.allows(*(asked or (request.method, target))):
            what = "read" if request.method in ("GET", "HEAD") else "publish"
            raise Denied(403, "forbidden", f"the credential does not grant the right to {what} this", "insufficient_scope")
        request.caller = caller
        if not auth.forward:
            forget_credential(request, auth)
        if auth.subject_header and caller.subject:
            request.set_field(auth.subject_header, quote(caller.subject, safe=_VISIBLE, errors="surrogatepass"))
        return target

    async def _identify(self, auth: Auth, presented: Credential) -> tuple[Caller, Grants | None]:
        if len(presented.text) > _MOST_CHARACTERS:
            raise Denied(401, "unauthenticated", f"the credential must have at most {_MOST_CHARACTERS} characters", "invalid_token")
        if auth.kind == "api-keys":
            return _find_key(auth, presented.text)
        try:
            claims = await self._read_token(auth, presented.text)
        except TokenRefused as error:
            raise Denied(401, "expired" if error.expired else "unauthenticated", str(error), "invalid_token") from None
        except KeysUnavailable as error:
            detail = "the keys that verify tokens are unavailable; retry later"
            raise Denied(503, "keys", detail, retry_after_seconds=error.retry_after_seconds) from None
        return _describe(auth, presented.text, claims)

    async def _read_token(self, auth: Auth, token: str) -> dict[str, Any]:
        key = auth.key
        algorithm, id = read_head(token)
        if algorithm not in auth.rules.algorithms:
            raise TokenRefused("the algorithm of the token is not allowed")
        if auth.jwks_url:
            key = await self._key_sets.find(auth.jwks_url, algorithm, id)
        if key is None:
            raise TokenRefused("the token is signed with an unknown key")
        return verify(token, key, auth.rules)


def _forget_subject(request: Incoming, names: frozenset[str]) -> None:
    """Remove the fields that name the subject to an upstream, so that clients cannot set them on any route to it.

    Raises Denied if a field has an underscore in place of a hyphen.
    """
    for name in request.headers if names else ():
        if "_" in name and name.replace("_", "-").lower() in names:
            raise Denied(400, "malformed", f"the field {name} has an underscore, which some servers read as a hyphen; remove the field")
    request.forget(*names)


def _find_presented(request: Incoming, route: Route, auth: Auth, target: str) -> tuple[Credential, str]:
    """Return the credential of a request, and `target` without it. Raises Denied if there is no usable credential."""
    target, parameters = cut_parameter(target, auth.query_parameter)
    try:
        presented = find_credential(request, auth, parameters)
    except AmbiguousCredentials as error:
        raise Denied(400, "unauthenticated", str(error), "invalid_request") from None
    if not presented.text:
        raise Denied(401, "unauthenticated", f"{_ways(auth)} is required")
    if presented.by_cookie:
        _check_origin(request, route, auth)
    return presented, target


def _ways(auth: Auth) -> str:
    what = "an API key" if auth.kind == "api-keys" else "a token"
    ways = ["`Authorization: Bearer …`"]
    if auth.kind == "api-keys":
        ways.append("`X-API-Key`")
    if auth.query_parameter:
        ways.append(f"the query parameter {auth.query_parameter!r}")
    if auth.cookie:
        ways.append(f"the cookie {auth.cookie!r}")
    return f"{what}, in {' or '.join(ways)},"


def _check_origin(request: Incoming, route: Route, auth: Auth) -> None:
    cors = route.cors
    allowed = {*auth.cookie_origins}
    origin = request.headers.get("Origin", "")
    if cors is not None and cors.credentials and cors.allows(origin):
        allowed.add(origin)
    if not is_from_own_pages(request, allowed):
        raise Denied(403, "origin", "a cookie is accepted only from pages of this origin and of the origins that the route names")


def _find_key(auth: Auth, key: str) -> tuple[Caller, Grants | None]:
    given = digest_of(key)
    found = [each for each in auth.keys if hmac.compare_digest(each.digest, given)]  # compares all keys, so that timing reveals nothing
    if not found:
        raise Denied(401, "unauthenticated", "the API key is unknown", "invalid_token")
    return Caller(found[0].name, _digest("api-key", found[0].name), key=given), found[0].allowed


def _describe(auth: Auth, token: str, claims: dict[str, Any]) -> tuple[Caller, Grants | None]:
    subject, issuer = claims.get("sub", ""), claims.get("iss", "")
    credentials = _digest("subject", issuer, subject) if subject else _digest("token", token)
    expires_at = min(int(claims["exp"]), _LAST_SECOND) + auth.rules.leeway_seconds if "exp" in claims else 0.0
    caller = Caller(subject, credentials, expires_at)
    if not auth.grants_claim:
        return caller, None
    if auth.grants_claim not in claims:
        raise Denied(403, "forbidden", f"the token needs a claim {auth.grants_claim!r} that lists its grants", "insufficient_scope")
    try:
        return caller, Grants.parse(claims[auth.grants_claim])
    except GrantError as error:
        raise Denied(403, "forbidden", f"the claim {auth.grants_claim!r} of the token: {error}", "insufficient_scope") from None


def _may_be_guarded_otherwise(routes: RouteTable, route: Route | None, path: str) -> bool:
    """Return whether an upstream may read `path` as one with other guards: `/open/../closed`, `/%2563losed`, `/closed;x`, `/CLOSED`."""
    others = [other for guise in all_readings(path) for other in (routes.find(guise), routes.find_ignoring_case(guise))]
    if (other := routes.find_ignoring_case(path)) is not routes.find(path):
        others.append(other)
    return any(_guard(other) not in (None, _guard(route)) for other in others)


def _guard(route: Route | None) -> Auth | None:
    return route.auth if route is not None and route.auth is not None and route.auth.kind != "none" else None


def _digest(*parts: object) -> bytes:
    return hashlib.sha256(json.dumps(parts).encode()).digest()
