"""Cross-origin resource sharing: pages of other origins that may use a route (Fetch standard, section 3.3)."""

import re
from collections.abc import Collection
from functools import cached_property
from typing import Self

from multidict import CIMultiDict, CIMultiDictProxy, istr
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from .field_names import check_names, is_name

ANY = "*"

ORIGIN, ALLOW_ORIGIN, ALLOW_CREDENTIALS, EXPOSE_HEADERS, VARY = map(
    istr, ("Origin", "Access-Control-Allow-Origin", "Access-Control-Allow-Credentials", "Access-Control-Expose-Headers", "Vary")
)
_REQUEST_METHOD, _REQUEST_HEADERS = map(istr, ("Access-Control-Request-Method", "Access-Control-Request-Headers"))
_ALLOW_METHODS, _ALLOW_HEADERS, _MAX_AGE = map(
    istr, ("Access-Control-Allow-Methods", "Access-Control-Allow-Headers", "Access-Control-Max-Age")
)
ANSWER_FIELDS = (
    ALLOW_ORIGIN,
    ALLOW_CREDENTIALS,
    EXPOSE_HEADERS,
    _ALLOW_METHODS,
    _ALLOW_HEADERS,
    _MAX_AGE,
    istr("Access-Control-Allow-Private-Network"),
)
"""Header fields of an answer that grant pages access to it."""

_HOST = r"(\[[0-9a-f:.]+\]|[a-z0-9_-]+(\.[a-z0-9_-]+)*)"
_ORIGIN = re.compile(rf"[a-z][a-z0-9+.-]*://{_HOST}(:[0-9]{{1,5}})?")
_SUBDOMAINS = re.compile(r"(https?://)\*(\.[a-z0-9_-]+(?:\.[a-z0-9_-]+)+(?::[0-9]{1,5})?)")
_LABELS = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


class Cors(BaseModel):
    """A route's `[routes.cors]` table. The gateway then answers preflights itself and replaces the upstream's CORS fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    origins: tuple[str, ...]
    """Origins whose pages may use the route: `https://app.example.com`, `https://*.example.com` for all subdomains, or only `*` for all."""
    credentials: bool = False
    """Whether pages may send cookies and read the answers. Cannot be combined with `*`."""
    methods: tuple[str, ...] = ()
    """Methods that pages may use. Default: all that the route allows."""
    headers: tuple[str, ...] = (
        "Authorization",
        "Cache-Control",
        "Content-Type",
        "Idempotency-Key",
        "Last-Event-ID",
        "Traceparent",
        "Tracestate",
        "X-Request-Id",
    )
    """Request header fields that pages may set. `*`: all except `Authorization`."""
    expose: tuple[str, ...] = (
        "Location",
        "Retry-After",
        "Stream-Blocks",
        "Stream-Bytes",
        "Stream-Id",
        "Stream-Reason",
        "Stream-State",
        "Stream-Viewers",
        "X-Request-Id",
    )
    """Header fields of answers that pages may read. `*`: all."""
    max_age_seconds: int = Field(600, ge=0)
    """Seconds for which a browser may cache a preflight."""

    @field_validator("origins")
    @classmethod
    def _origins_are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        if not origins:
            raise ValueError("must name at least one origin, or remove the table cors")
        for origin in origins:
            if origin != ANY and not _SUBDOMAINS.fullmatch(origin) and not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin!r} is not an origin; write scheme://host or scheme://host:port in lower case without a path, "
                    "https://*.example.com for all subdomains, or * for any origin"
                )
            scheme = origin.partition(":")[0]
            if origin.endswith(_DEFAULT_PORTS.get(scheme, " ")):
                raise ValueError(f"{origin!r}: remove the default port, which browsers omit")
        if ANY in origins and len(origins) > 1:
            raise ValueError("* must be the only origin, because it allows all")
        return origins

    @field_validator("methods")
    @classmethod
    def _methods_are_upper_case(cls, methods: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(method.upper() for method in check_names(methods, "method"))

    @field_validator("headers", "expose")
    @classmethod
    def _headers_are_field_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return check_names(names, "field name")

    @model_validator(mode="after")
    def _wildcards_are_for_pages_without_credentials(self) -> Self:
        for key in ("origins", "methods", "headers", "expose"):
            if self.credentials and ANY in getattr(self, key):
                raise ValueError(f"{key} = ['*'] and credentials = true: browsers reject * with credentials; name each of the {key}")
        return self

    @cached_property
    def subdomains_of(self) -> tuple[tuple[str, str], ...]:
        """Schemes and domains, each with a leading dot, whose subdomains are allowed."""
        found = (_SUBDOMAINS.fullmatch(origin) for origin in self.origins)
        return tuple((match[1], match[2]) for match in found if match)

    def allows(self, origin: str) -> bool:
        """Return whether pages of an origin may read answers."""
        if origin in self.origins or ANY in self.origins:
            return True
        for scheme, domain in self.subdomains_of:
            if origin.startswith(scheme) and origin.endswith(domain) and _LABELS.fullmatch(origin[len(scheme) : -len(domain)]):
                return True
        return False

    def answer_fields(self, origin: str | None) -> CIMultiDict[str]:
        """Return the header fields for answers to a page of `origin`. An empty value removes the field."""
        fields: CIMultiDict[str] = CIMultiDict((name, "") for name in ANSWER_FIELDS)
        if ANY in self.origins:
            fields[ALLOW_ORIGIN] = ANY
        else:
            fields[VARY] = "Origin"
            if origin is None or not self.allows(origin):
                return fields
            fields[ALLOW_ORIGIN] = origin
            if self.credentials:
                fields[ALLOW_CREDENTIALS] = "true"
        if self.expose:
            fields[EXPOSE_HEADERS] = ", ".join(self.expose)
        return fields

    def preflight_fields(self, headers: CIMultiDictProxy[str], methods: Collection[str]) -> dict[str, str]:
        """Return the fields of a preflight's answer besides `answer_fields`, none if the origin is not allowed.

        `methods` are those of the resource; empty means all.
        """
        if not self.allows(headers.get(ORIGIN, "")):
            return {}
        allowed = [method for method in self.methods or methods if not methods or method in methods or method == ANY]
        asked = headers.get(_REQUEST_METHOD, "")
        return {
            _ALLOW_METHODS: ", ".join(allowed) if self.methods or methods else asked if is_name(asked) else "",
            _ALLOW_HEADERS: ", ".join(self.headers),
            _MAX_AGE: str(self.max_age_seconds),
        }


def is_preflight(method: str, headers: CIMultiDictProxy[str]) -> bool:
    """Return whether this is a CORS preflight."""
    return method == "OPTIONS" and ORIGIN in headers and _REQUEST_METHOD in headers
