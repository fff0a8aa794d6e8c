"""The table `[routes.auth]`: authentication of a route's clients."""

import re
from collections.abc import Iterable
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, PrivateAttr, field_validator, model_validator

from .field_names import is_name
from .keys import ApiKey, StrictTable, exactly_one, read_at
from .secrets import read_file, read_public_key, read_variable
from .tokens import PUBLIC_ALGORITHMS, SECRET_ALGORITHMS, PublicKey, TokenRules, algorithms_of

Algorithm = Literal["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]

_FOR_ALL_KINDS = ("cookie", "cookie_origins", "query_parameter", "forward", "subject_header")
_KEYS_OF_KINDS = {
    "api-keys": ("keys",),
    "jwt": (
        "secret_env",
        "secret_file",
        "public_key_file",
        "jwks_url",
        "algorithms",
        "issuer",
        "audience",
        "leeway_seconds",
        "require_exp",
        "grants_claim",
    ),
}
TOKEN_KEYS = ("secret_env", "secret_file", "public_key_file", "jwks_url")
_PARAMETER = re.compile(r"[A-Za-z0-9._~-]+")
_ORIGIN = re.compile(r"https?://(\[[0-9a-f:.]+\]|[^\s/?#@:\[\]A-Z]+)(:[0-9]{1,5})?")
_LEAST_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}  # RFC 7518 section 3.2


class Auth(StrictTable):
    """Authentication of a route's clients. Secrets are read on construction."""

    kind: Literal["none", "api-keys", "jwt"] = "none"
    """Clients that may use the route. `none`: all. `api-keys`: those with one of `keys`. `jwt`: those with a token of the issuer."""
    keys: tuple[ApiKey, ...] = ()
    """api-keys: the keys, each with a `name` and one of `sha256`, `key_env`, `key_file`; `grants` limits what a key allows."""
    secret_env: str = ""
    """jwt: an environment variable with the secret of HS256, HS384 or HS512."""
    secret_file: str = ""
    """jwt: a file with that secret."""
    public_key_file: str = ""
    """jwt: a PEM file with the issuer's public key."""
    jwks_url: str = ""
    """jwt: the URL at which the issuer publishes its keys."""
    algorithms: tuple[Algorithm, ...] = ()
    """jwt: allowed algorithms. Default: HS256 with a secret, with a public key all that fit it."""
    issuer: tuple[str, ...] = ()
    """jwt: a token's `iss` must be one of these."""
    audience: tuple[str, ...] = ()
    """jwt: a token's `aud` must contain one of these."""
    leeway_seconds: float = Field(10.0, ge=0, le=3600)
    """jwt: tolerated difference between the clocks of issuer and gateway."""
    require_exp: bool = True
    """jwt: whether a token must have an `exp`."""
    grants_claim: str = "events"
    """jwt: the claim that lists what may be read and published. A token without it grants nothing. Empty: any valid token grants all."""
    cookie: str = ""
    """A cookie with the credential, accepted from pages of the route's own origin and of `cookie_origins`."""
    cookie_origins: tuple[str, ...] = ()
    """Further origins whose pages may use the cookie."""
    query_parameter: str = ""
    """A query parameter with the credential, for `EventSource`. It is never forwarded."""
    forward: bool = False
    """Whether header fields with the credential are forwarded to the upstream."""
    subject_header: str = ""
    """A header field that tells the upstream the subject. Clients cannot set it."""
    _rules: TokenRules | None = PrivateAttr(None)
    _key: bytes | PublicKey | None = PrivateAttr(None)

    @field_validator("issuer", "audience", mode="before")
    @classmethod
    def _one_is_enough(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("jwks_url")
    @classmethod
    def _jwks_url_is_a_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if url and (not re.fullmatch(r"https?://[!-~]+", url) or not parts.hostname or parts.username is not None or parts.fragment):
            raise ValueError("must be an http or https URL without credentials")
        _ = parts.port  # raises ValueError if out of range
        return url

    @field_validator("cookie", "subject_header")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if name and not is_name(name):
            raise ValueError("must be a name without blanks")
        return name

    @field_validator("query_parameter")
    @classmethod
    def _is_a_parameter(cls, name: str) -> str:
        if name and not _PARAMETER.fullmatch(name):
            raise ValueError("must be letters, digits and ._~-")
        return name

    @field_validator("cookie_origins")
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} is not an origin; write scheme://host or scheme://host:port in lower case, without a path")
        return origins

    @model_validator(mode="after")
    def _keys_fit_the_kind(self) -> Self:
        for kind, names in {**_KEYS_OF_KINDS, "api-keys or jwt": _FOR_ALL_KINDS}.items():
            for name in names:
                if self.kind not in kind.split(" or ") and name in self.model_fields_set:
                    raise ValueError(f"{name} requires kind = {kind!r}, got kind = {self.kind!r}")
        if self.cookie_origins and not self.cookie:
            raise ValueError("cookie_origins requires cookie, which is not set")
        if self.kind == "api-keys":
            if not self.keys:
                raise ValueError("kind = 'api-keys' needs at least one [[routes.auth.keys]]")
            digests = [key.digest for key in self.keys]
            if twice := [key.name for key in self.keys if digests.count(key.digest) > 1]:
                raise ValueError(f"{' and '.join(map(repr, twice))} have the same key")
        elif self.kind == "jwt":
            self._read_key()
        return self

    def _read_key(self) -> None:
        allowed: tuple[str, ...]
        match exactly_one(self, TOKEN_KEYS):
            case "public_key_file":
                key = read_at("public_key_file", lambda: read_public_key(self.public_key_file))
                allowed = default = algorithms_of(key)
                self._key = key
            case "jwks_url":
                allowed = default = PUBLIC_ALGORITHMS
            case name:
                allowed, default = SECRET_ALGORITHMS, ("HS256",)
                secret = read_at(name, lambda: read_variable(self.secret_env) if self.secret_env else read_file(self.secret_file))
                _check_secret(name, secret, self.algorithms or default)
                self._key = secret
        if wrong := [name for name in self.algorithms if name not in allowed]:
            raise ValueError(f"algorithms has {wrong[0]}, which does not fit the key; allowed are {', '.join(allowed)}")
        self._rules = TokenRules(self.algorithms or default, self.issuer, self.audience, self.leeway_seconds, self.require_exp)

    @property
    def rules(self) -> TokenRules:
        """The requirements on a token."""
        assert self._rules is not None
        return self._rules

    @property
    def key(self) -> bytes | PublicKey | None:
        """The key that verifies tokens, if there is a single fixed one."""
        return self._key


def _check_secret(name: str, secret: bytes, algorithms: Iterable[str]) -> None:
    if secret.lstrip().startswith(b"-----BEGIN"):
        raise ValueError(f"{name}: must be a shared secret, got a PEM key or certificate; use public_key_file for public keys")
    for algorithm in algorithms:
        least = _LEAST_BYTES.get(algorithm, 0)
        if len(secret) < least:
            raise ValueError(f"{name}: {algorithm} needs a secret of at least {least} bytes, got {len(secret)}")


def conflict_with_route(auth: Auth | None, mode: str, share_by: Iterable[str]) -> str:
    """Return why a table contradicts its route's other keys, empty if it does not."""
    if auth is None or auth.kind == "none":
        return ""
    if mode == "shared" and auth.subject_header and auth.subject_header.lower() not in share_by:
        return f"auth.subject_header: a shared stream has no single subject; add {auth.subject_header.lower()!r} to share_by, or remove it"
    if not auth.forward and (taken := {"authorization", "x-api-key"}.intersection(share_by)):
        return f"share_by has {taken.pop()!r}, which auth removes; use auth.subject_header, or set auth.forward = true"
    return ""
