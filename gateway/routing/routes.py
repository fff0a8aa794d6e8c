"""A route: which upstream serves a path, and how."""

import hashlib
import re
import ssl
from functools import cached_property
from typing import Literal, Self
from urllib.parse import unquote_plus, urlsplit

import aiohttp
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from eventstream import DEFAULT_MAX_BLOCK_BYTES

from ..auth.table import Auth, conflict_with_route
from ..cors import Cors
from ..last_event_id import PARAMETERS
from .upstream_tls import UpstreamTls

_KEYS_OF_MODES = {
    "shared": (
        "share_by",
        "public",
        "begin_parameters",
        "private_parameters",
        "linger_seconds",
        "initial",
        "history_max_blocks",
        "history_max_bytes",
        "history_max_age_seconds",
        "ids",
        "gap_events",
        "max_connection_seconds",
    ),
    "resumable": (
        "max_stream_bytes",
        "retain_seconds",
        "orphan_seconds",
        "credential_fields",
        "credential_cookies",
        "credential_parameters",
        "anonymous_keys",
    ),
}
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2


_KEYS_OF_REQUESTS = ("methods", "query_parameters", "auth", "cors")
"""Keys that say who may ask, and not what a shared stream is."""


class Route(BaseModel):
    """One `[[routes]]` table."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    path: str
    """Path prefix that this route serves. `/api` serves `/api` and `/api/…`, `/api/` only what is below it, `/` everything."""
    upstream: str
    """An http or https URL; GATEWAY_UPSTREAM when it is missing. The request's path and query are appended to its path, as they came."""
    mode: Literal["direct", "shared", "resumable"] = "direct"
    """`direct`: one upstream request per downstream request. `shared`: one for all GETs of the same URL, whoever asks. `resumable`: one per
    request, whose event stream is kept, so that a client that was cut off comes back for the rest; for POST, or for `methods`."""
    methods: tuple[str, ...] = ()
    """Allowed methods, all when empty. Others are answered 405."""
    query_parameters: tuple[str, ...] | None = None
    """Names of the query parameters that requests may have, beside those of other keys and the last event ID. Others are answered 400.
    Without it any parameter passes."""
    connect_timeout_seconds: float = Field(5.0, gt=0)
    """For how long the gateway tries to connect to the upstream; then 502, or 504 when the upstream did not answer. A refused connection is
    tried again meanwhile, whatever the method: nothing of the request has been sent."""
    first_byte_timeout_seconds: float = Field(60.0, ge=0)
    """How long the upstream's head may take after the last byte of the request, connecting included; then 504. 0: no limit."""
    body_timeout_seconds: float = Field(60.0, ge=0)
    """How long the body of a request may go without bringing 256 bytes, as far as it is waited for; then 408. 0: no limit."""
    idle_timeout_seconds: float = Field(0.0, ge=0)
    """How long the upstream may be silent within a response; then it is lost. 0: no limit (TCP keep-alive finds dead hosts)."""
    heartbeat_seconds: float = Field(15.0, ge=0)
    """An event stream without a write for this time gets a comment (`:`), as a block of its own while it has shown no `id`. 0: none."""
    max_block_bytes: int = Field(DEFAULT_MAX_BLOCK_BYTES, ge=1)
    """Largest event block in bytes; a larger one ends the stream as an upstream loss does."""
    on_upstream_loss: Literal["abort", "error-event"] = "abort"
    """What a cut event stream ends with: an aborted connection, or an `event: error` block and a clean end."""
    share_by: tuple[str, ...] = ()
    """shared: request header fields that say who asks, such as `authorization`. They are forwarded, and only requests that agree in them
    share a stream."""
    public: bool = False
    """shared: everybody gets the same whoever they are. `Authorization` and `Cookie` are not forwarded, unless `share_by` names them."""
    begin_parameters: tuple[str, ...] = ()
    """shared: query parameters by which a client says where to begin, such as `from`. They make no stream of their own: what they ask
    for is fetched by itself and followed by what is shared."""
    private_parameters: tuple[str, ...] = ()
    """shared: query parameters, such as `limit`, that make an answer nobody else's; such requests go as in mode direct."""
    wait_seconds: float = Field(10.0, ge=0)
    """How long a new subscriber waits for an upstream that is down, which is tried again meanwhile; then it gets the error. 0: it never
    waits. shared: down is an upstream without a connection or an answer, or with a 502, 503 or 504. Other modes: only one without a
    connection, and a subscriber is a GET whose `Accept` names `text/event-stream`."""
    linger_seconds: float = Field(30.0, ge=0)
    """shared: how long the upstream is still followed when the last subscriber has left, if there was an event."""
    initial: Literal["live", "history"] = "live"
    """shared: where a subscriber without `Last-Event-ID` begins: now, or with the oldest block that is kept."""
    history_max_blocks: int = Field(10_000, ge=1)
    """shared: how many blocks of a stream are kept."""
    history_max_bytes: int = Field(8 * 2**20, ge=1)
    """shared: how many bytes of a stream are kept, the index by event ID included (about 160 bytes an event)."""
    history_max_age_seconds: float = Field(3600.0, gt=0)
    """shared: for how long blocks are kept."""
    ids: Literal["upstream", "assign"] = "upstream"
    """shared: `assign` gives blocks that have data and no ID one of the gateway's own, `<epoch>-<offset>`."""
    gap_events: bool = True
    """shared: whether a subscriber that may have missed something is told by an event of type `gap`."""
    max_stream_bytes: int = Field(16 * 2**20, ge=1)
    """resumable: a stream that passes so many bytes ends, as too large."""
    retain_seconds: float = Field(300.0, ge=0)
    """resumable: for how long a stream is kept after its end."""
    orphan_seconds: float = Field(60.0, ge=0)
    """resumable: a stream that nobody has followed for so long is cancelled; 0: as soon as nobody does."""
    credential_fields: tuple[str, ...] = ("Authorization", "X-Api-Key", "Api-Key")
    """resumable: request header fields that say whose a kept answer is; only a request with the same ones gets it. A route with `auth` goes
    by the subject instead."""
    credential_cookies: tuple[str, ...] | Literal["all"] = "all"
    """resumable: cookies that say so too."""
    credential_parameters: tuple[str, ...] = ("key", "api_key", "access_token", "token")
    """resumable: query parameters that say so too."""
    anonymous_keys: Literal["by-address", "anybody", "off"] = "by-address"
    """resumable: who may join by the `Idempotency-Key` of a request without credentials: clients of the same address (of IPv6 a /64),
    anybody who knows the key, or, with `off`, no client."""
    max_connection_seconds: float = Field(0.0, ge=0)
    """shared: a subscriber is told to come back after about so long, give or take a tenth. 0: never."""
    cors: Cors | None = None
    """Table: which pages of other origins may ask and read. Without it that is the upstream's business."""
    auth: Auth | None = None
    """Table: who may use the route. Without it anybody may."""
    ca_file: str = ""
    """https: a PEM file with the certificate authorities to trust, in place of the system's or those of `SSL_CERT_FILE`."""
    client_certificate_file: str = ""
    """https: a PEM file with the certificate that the gateway shows, and any between it and its authority."""
    client_key_file: str = ""
    """https: a PEM file with that certificate's private key, unencrypted. Without it the key is in `client_certificate_file`."""
    preserve_host: bool = False
    """Whether the upstream gets the client's `Host`; otherwise it gets its own. With mode shared, clients share a stream by `Host` then."""
    request_headers: dict[str, str] = {}
    """Header fields that every upstream request gets; an empty value removes the field."""
    response_headers: dict[str, str] = {}
    """Header fields that every answer of the upstream gets; an empty value removes the field."""
    _tls: UpstreamTls = PrivateAttr()

    @field_validator("path")
    @classmethod
    def _path_is_absolute(cls, path: str) -> str:
        if not re.fullmatch(r"/[!-~]*", path) or "?" in path or "#" in path:
            raise ValueError("must begin with / and contain no ?, # or blank; other characters than ASCII are percent-encoded")
        return path

    @field_validator("upstream")
    @classmethod
    def _upstream_is_a_url(cls, upstream: str) -> str:
        if not re.fullmatch(r"[!-~]+", upstream):
            raise ValueError("must be a URL like http://host:port, without blanks, other characters than ASCII percent-encoded")
        parts = urlsplit(upstream)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be a URL like http://host:port or https://host/prefix")
        if parts.username is not None:
            raise ValueError("must not contain credentials, set them with request_headers")
        if parts.query or parts.fragment:
            raise ValueError("must not contain a query or a fragment")
        _ = parts.port  # raises ValueError when it is out of range
        return upstream.rstrip("/")

    @field_validator("methods")
    @classmethod
    def _methods_are_upper_case(cls, methods: tuple[str, ...]) -> tuple[str, ...]:
        for method in methods:
            if not _TOKEN.fullmatch(method):
                raise ValueError(f"{method!r} is not a method")
        return tuple(method.upper() for method in methods)

    @field_validator("share_by", "credential_fields")
    @classmethod
    def _names_are_those_of_fields(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not _TOKEN.fullmatch(name):
                raise ValueError(f"{name!r} is not a field name")
        return tuple(name.lower() for name in names)

    @field_validator("request_headers", "response_headers")
    @classmethod
    def _headers_are_fields(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if not _TOKEN.fullmatch(name):
                raise ValueError(f"{name!r} is not a field name")
            if not re.fullmatch(r"[\t -~\x80-\U0010ffff]*", value):
                raise ValueError(f"the value of {name} contains a control character")
        return headers

    @model_validator(mode="after")
    def _keys_fit_the_mode(self) -> Self:
        for mode, names in _KEYS_OF_MODES.items():
            for name in names:
                if self.mode != mode and name in self.model_fields_set:
                    raise ValueError(f"{name} is for mode = {mode!r}, this route's mode is {self.mode!r}")
        if conflict := conflict_with_route(self.auth, self.mode, self.share_by):
            raise ValueError(conflict)
        return self

    @model_validator(mode="after")
    def _cors_is_said_once(self) -> Self:
        for name in self.response_headers if self.cors is not None else ():
            if name.lower().startswith("access-control-"):
                raise ValueError(f"response_headers sets {name}, as the table cors does; leave out one of them")
        return self

    @model_validator(mode="after")
    def _files_are_usable(self) -> Self:
        self._tls = UpstreamTls(self.upstream, self.ca_file, self.client_certificate_file, self.client_key_file)
        return self

    @property
    def tls(self) -> ssl.SSLContext | bool:
        """What aiohttp takes as `ssl`."""
        return self._tls.context

    @cached_property
    def timeout(self) -> aiohttp.ClientTimeout:
        """The time limits that aiohttp keeps for this route."""
        return aiohttp.ClientTimeout(total=None, connect=self.connect_timeout_seconds, sock_connect=self.connect_timeout_seconds)

    @cached_property
    def subscriber_timeout(self) -> aiohttp.ClientTimeout:
        """The same for a subscriber, which waits for an upstream that is down."""
        longest = max(self.connect_timeout_seconds, self.wait_seconds)
        return aiohttp.ClientTimeout(total=None, connect=longest, sock_connect=self.connect_timeout_seconds)

    @cached_property
    def stream_kind(self) -> str:
        """Is the same for routes whose requests can share a stream: a digest of the path and of all that makes a stream what it is."""
        keys = self.model_dump_json(exclude=set(_KEYS_OF_REQUESTS))
        return hashlib.sha256(f"{keys}{self._tls}".encode()).hexdigest()

    @cached_property
    def upstream_origin(self) -> tuple[str, str, int]:
        """Scheme, host and port of the upstream."""
        parts = urlsplit(self.upstream)
        return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)

    @cached_property
    def known_parameters(self) -> frozenset[str] | None:
        """The query parameters that requests may have, None if any."""
        if self.query_parameters is None:
            return None
        credentials = self.credential_parameters if self.mode == "resumable" else ()
        key = (self.auth.query_parameter,) if self.auth is not None and self.auth.query_parameter else ()
        return frozenset((*self.query_parameters, *self.begin_parameters, *self.private_parameters, *credentials, *key, *PARAMETERS))

    def unknown_parameter(self, query: str) -> str | None:
        """Return the first parameter of a query that requests may not have, None if there is none. Empty ones are no parameters."""
        known = self.known_parameters
        if known is None:
            return None
        spelled = dict.fromkeys(parameter.partition("=")[0] for parameter in query.split("&") if parameter)
        return next((name for name in map(unquote_plus, spelled) if name not in known), None)

    @cached_property
    def lower_path(self) -> str:
        """The path in lower case."""
        return self.path.lower()

    def matches(self, path: str) -> bool:
        """Whether this route serves `path`, which is still percent-encoded and has no query."""
        return is_below(path, self.path)


def is_below(path: str, prefix: str) -> bool:
    """Whether `path` is that of the prefix or below it. A prefix that ends in a slash has only what is below it."""
    return path.startswith(prefix) and (len(path) == len(prefix) or prefix.endswith("/") or path[len(prefix)] == "/")
