"""A route: the upstream that serves a path, and how."""

import hashlib
import re
import ssl
from functools import cached_property
from typing import Literal, Self
from urllib.parse import unquote_plus, urlsplit

import aiohttp
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from eventstream import DEFAULT_MAX_BLOCK_BYTES
from service.last_event_id import PARAMETERS

from .auth_table import Auth, conflict_with_route
from .cors import Cors
from .field_names import check_names
from .resume import Resume, Templates
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
        "max_kept_body_bytes",
        "retain_seconds",
        "orphan_seconds",
        "credential_fields",
        "credential_cookies",
        "credential_parameters",
        "anonymous_keys",
        "resume",
    ),
}

_KEYS_OF_REQUESTS = ("methods", "query_parameters", "auth", "cors")
"""Keys that restrict requests and do not change a shared stream."""


class Route(BaseModel):
    """One `[[routes]]` table."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    path: str
    """Path prefix of this route. `/api` serves `/api` and `/api/…`, `/api/` only paths below it, `/` every path."""
    upstream: str
    """An http or https URL, by default GATEWAY_UPSTREAM. The request's path and query are appended unchanged to its path."""
    mode: Literal["direct", "shared", "resumable"] = "direct"
    """`direct`: one upstream request per client request. `shared`: one for all GETs of the same URL, whichever client sends them.
    `resumable`: one per request, whose event stream is kept, so that a disconnected client can resume it; for POST, or for `methods`."""
    methods: tuple[str, ...] = ()
    """Allowed methods; empty allows all. Others get 405."""
    query_parameters: tuple[str, ...] | None = None
    """Allowed query parameters, besides those of other keys and of the last event ID. Others get 400. Without this key all are allowed."""
    connect_timeout_seconds: float = Field(5.0, gt=0)
    """Time limit for connecting to the upstream; then 502, or 504 if the upstream did not answer. Refused connections are retried within
    it, for any method, because nothing of the request has been sent."""
    first_byte_timeout_seconds: float = Field(60.0, ge=0)
    """Time limit for the upstream's response head after the last byte of the request, including connecting, and for the upstream to take
    more of the request's body; then 504. 0: no limit."""
    body_timeout_seconds: float = Field(60.0, ge=0)
    """Time limit for each 256 bytes of a request body while the gateway waits for it; then 408. 0: no limit."""
    idle_timeout_seconds: float = Field(0.0, ge=0)
    """Time limit for silence within an upstream's response; then the upstream is lost. 0: no limit (TCP keep-alive detects dead hosts)."""
    heartbeat_seconds: float = Field(15.0, ge=0)
    """Interval of heartbeats: an event stream without a write for this time gets a comment (`:`), in a block of its own until the stream
    has shown an `id`. 0: none."""
    max_block_bytes: int = Field(DEFAULT_MAX_BLOCK_BYTES, ge=1)
    """Largest event block in bytes. A larger one ends the stream like a lost upstream."""
    on_upstream_loss: Literal["abort", "error-event"] = "abort"
    """How the gateway ends an event stream that its upstream cut: abort the connection, or send an `event: error` block and end cleanly."""
    share_by: tuple[str, ...] = ()
    """shared: request header fields that identify the client, such as `authorization`. They are forwarded, and only requests with equal
    values share a stream."""
    public: bool = False
    """shared: every client gets the same stream. `Authorization` and `Cookie` are not forwarded, unless `share_by` names them."""
    begin_parameters: tuple[str, ...] = ()
    """shared: query parameters that select where a client starts, such as `from`. They do not make a separate stream: the gateway fetches
    that part separately and continues with the shared stream."""
    private_parameters: tuple[str, ...] = ()
    """shared: query parameters, such as `limit`, whose answers must not be shared. Such requests are handled as in mode direct."""
    wait_seconds: float = Field(10.0, ge=0)
    """Time that a new subscriber waits for an upstream that is down, while the gateway retries; then it gets the error. 0: do not wait.
    shared: an upstream is down without a connection or an answer, or with a 502, 503 or 504. Other modes: only without a connection; a
    subscriber is a GET whose `Accept` names `text/event-stream`."""
    linger_seconds: float = Field(30.0, ge=0)
    """shared: time that the upstream connection stays open after the last subscriber leaves, if there was an event."""
    initial: Literal["live", "history"] = "live"
    """shared: where a subscriber without `Last-Event-ID` starts: `live` with new events, `history` with the oldest kept block."""
    history_max_blocks: int = Field(10_000, ge=1)
    """shared: number of blocks kept per stream."""
    history_max_bytes: int = Field(8 * 2**20, ge=1)
    """shared: number of bytes kept per stream, including the index by event ID (about 160 bytes an event)."""
    history_max_age_seconds: float = Field(3600.0, gt=0)
    """shared: time for which blocks are kept."""
    ids: Literal["upstream", "assign"] = "upstream"
    """shared: `assign` gives blocks with data but no ID an ID made by the gateway, `<epoch>-<offset>`."""
    gap_events: bool = True
    """shared: whether a subscriber that may have missed events gets an event of type `gap`."""
    max_stream_bytes: int = Field(16 * 2**20, ge=1)
    """resumable: largest stream in bytes. A larger one ends as too large."""
    max_kept_body_bytes: int = Field(16 * 2**20, ge=0)
    """resumable: largest request body in bytes. The response to a larger one is not kept; it passes as in mode direct."""
    retain_seconds: float = Field(300.0, ge=0)
    """resumable: time for which a stream is kept after its end."""
    orphan_seconds: float = Field(60.0, ge=0)
    """resumable: time without a subscriber after which a stream is cancelled. 0: as soon as its last subscriber leaves."""
    credential_fields: tuple[str, ...] = ("Authorization", "X-Api-Key", "Api-Key")
    """resumable: request header fields that identify the owner of a kept stream. Only a request with equal values gets it. A route with
    `auth` uses the subject instead."""
    credential_cookies: tuple[str, ...] | Literal["all"] = "all"
    """resumable: cookies that also identify the owner."""
    credential_parameters: tuple[str, ...] = ("key", "api_key", "access_token", "token")
    """resumable: query parameters that also identify the owner."""
    anonymous_keys: Literal["by-address", "anybody", "off"] = "by-address"
    """resumable: clients that may join a stream by the `Idempotency-Key` of a request without credentials: those at the same address (IPv6:
    the same /64), any client that knows the key, or, with `off`, none. The same holds for names."""
    resume: Resume | None = None
    """Table, resumable: names of answers, and how clients ask for an answer by its name."""
    max_connection_seconds: float = Field(0.0, ge=0)
    """shared: time after which a subscriber is told to reconnect, varied by up to 10 %. 0: never."""
    cors: Cors | None = None
    """Table: which pages of other origins may send requests and read answers (CORS). Without it the upstream decides."""
    auth: Auth | None = None
    """Table: which clients may use the route. Without it all may."""
    ca_file: str = ""
    """https: a PEM file with the certificate authorities to trust, instead of the system's or those of `SSL_CERT_FILE`."""
    client_certificate_file: str = ""
    """https: a PEM file with the gateway's client certificate and any intermediate certificates."""
    client_key_file: str = ""
    """https: a PEM file with that certificate's unencrypted private key. Default: the key is in `client_certificate_file`."""
    preserve_host: bool = False
    """Whether the upstream gets the client's `Host` instead of its own. With mode shared, only clients with the same `Host` then share a
    stream."""
    request_headers: dict[str, str] = {}
    """Header fields set on every upstream request. An empty value removes the field."""
    response_headers: dict[str, str] = {}
    """Header fields set on every answer of the upstream. An empty value removes the field."""
    _tls: UpstreamTls = PrivateAttr()

    @classmethod
    def without_upstream(cls, path: str) -> Self:
        """Return a route with defaults, for kept streams whose route is gone. It cannot send requests."""
        return cls.model_construct(path=path, upstream="", mode="resumable")

    @field_validator("path")
    @classmethod
    def _path_is_absolute(cls, path: str) -> str:
        if not re.fullmatch(r"/[!-~]*", path) or "?" in path or "#" in path:
            raise ValueError("must begin with / and contain no ?, # or blank; percent-encode characters other than ASCII")
        return path

    @field_validator("upstream")
    @classmethod
    def _upstream_is_a_url(cls, upstream: str) -> str:
        if not re.fullmatch(r"[!-~]+", upstream):
            raise ValueError("must be a URL such as http://host:port without blanks; percent-encode characters other than ASCII")
        parts = urlsplit(upstream)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be a URL such as http://host:port or https://host/prefix")
        if parts.username is not None:
            raise ValueError("must not contain credentials; set them with request_headers")
        if parts.query or parts.fragment:
            raise ValueError("must not contain a query or a fragment")
        _ = parts.port  # raises ValueError if out of range
        return upstream.rstrip("/")

    @field_validator("methods")
    @classmethod
    def _methods_are_upper_case(cls, methods: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(method.upper() for method in check_names(methods, "method"))

    @field_validator("share_by", "credential_fields")
    @classmethod
    def _names_are_those_of_fields(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name.lower() for name in check_names(names, "field name"))

    @field_validator("request_headers", "response_headers")
    @classmethod
    def _headers_are_fields(cls, headers: dict[str, str]) -> dict[str, str]:
        check_names(tuple(headers), "field name")
        for name, value in headers.items():
            if not re.fullmatch(r"[\t -~\x80-\U0010ffff]*", value):
                raise ValueError(f"the value of {name} contains a control character")
        return headers

    @model_validator(mode="after")
    def _keys_fit_the_mode(self) -> Self:
        for mode, names in _KEYS_OF_MODES.items():
            for name in names:
                if self.mode != mode and name in self.model_fields_set:
                    raise ValueError(f"{name} requires mode = {mode!r}, got mode = {self.mode!r}")
        if conflict := conflict_with_route(self.auth, self.mode, self.share_by):
            raise ValueError(conflict)
        return self

    @model_validator(mode="after")
    def _templates_are_below_the_path(self) -> Self:
        _ = self.templates
        return self

    @cached_property
    def templates(self) -> Templates | None:
        """The paths of requests for a named answer, or None."""
        return self.resume.templates(self.path) if self.resume is not None and self.resume.path else None

    @cached_property
    def identifying_fields(self) -> tuple[str, ...]:
        """`credential_fields`, with those that the preset adds."""
        session = ("mcp-session-id",) if self.resume is not None and self.resume.preset == "mcp" else ()
        return self.credential_fields + session

    @model_validator(mode="after")
    def _cors_is_said_once(self) -> Self:
        for name in self.response_headers if self.cors is not None else ():
            if name.lower().startswith("access-control-"):
                raise ValueError(f"response_headers and the table cors both set {name}; remove one of them")
        return self

    @model_validator(mode="after")
    def _files_are_usable(self) -> Self:
        self._tls = UpstreamTls(self.upstream, self.ca_file, self.client_certificate_file, self.client_key_file)
        return self

    @property
    def tls(self) -> ssl.SSLContext | bool:
        """Value for aiohttp's `ssl`."""
        return self._tls.context

    @cached_property
    def timeout(self) -> aiohttp.ClientTimeout:
        """Time limits that aiohttp applies for this route."""
        return aiohttp.ClientTimeout(total=None, connect=self.connect_timeout_seconds, sock_connect=self.connect_timeout_seconds)

    @cached_property
    def subscriber_timeout(self) -> aiohttp.ClientTimeout:
        """Time limits for a subscriber, which waits for an upstream that is down."""
        longest = max(self.connect_timeout_seconds, self.wait_seconds)
        return aiohttp.ClientTimeout(total=None, connect=longest, sock_connect=self.connect_timeout_seconds)

    @cached_property
    def stream_kind(self) -> str:
        """Digest of the path and all keys that affect a shared stream. Requests can share a stream if their routes' digests match."""
        keys = self.model_dump_json(exclude=set(_KEYS_OF_REQUESTS))
        return hashlib.sha256(f"{keys}{self._tls}".encode()).hexdigest()

    @cached_property
    def upstream_origin(self) -> tuple[str, str, int]:
        """Scheme, host and port of the upstream."""
        parts = urlsplit(self.upstream)
        return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)

    @cached_property
    def known_parameters(self) -> frozenset[str] | None:
        """Allowed query parameters, None if all are allowed."""
        if self.query_parameters is None:
            return None
        credentials = self.credential_parameters if self.mode == "resumable" else ()
        key = (self.auth.query_parameter,) if self.auth is not None and self.auth.query_parameter else ()
        return frozenset((*self.query_parameters, *self.begin_parameters, *self.private_parameters, *credentials, *key, *PARAMETERS))

    def unknown_parameter(self, query: str) -> str | None:
        """Return the first parameter of a query that is not allowed, None if there is none. Empty parameters are ignored."""
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
        """Return whether this route serves `path` (percent-encoded, without query)."""
        return is_below(path, self.path)


def is_below(path: str, prefix: str) -> bool:
    """Return whether `path` is the prefix or below it. A prefix that ends in a slash matches only paths below it."""
    return path.startswith(prefix) and (len(path) == len(prefix) or prefix.endswith("/") or path[len(prefix)] == "/")
