"""Settings of the gateway, from `GATEWAY_*` environment variables."""

import re
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from service.settings import ServiceSettings, checked_by

from .admin_hosts import AdminHosts
from .services import parse_services
from .trusted_proxies import TrustedProxies


class Settings(ServiceSettings):
    """Settings of the whole gateway. Those of a route are in `gateway.policy.routes.Route`."""

    model_config = SettingsConfigDict(env_prefix="GATEWAY_")
    others_variables: ClassVar[frozenset[str]] = frozenset(("GATEWAY_PYTHON",))  # the interpreter with which benchmarks start the gateway

    host: str = "127.0.0.1"
    """Address of the public port."""
    port: int = Field(8080, ge=0, le=65535)
    """Public port, for clients. 0: a free one."""
    admin_host: str = "127.0.0.1"
    """Address of the admin port: dashboard, health and metrics. Keep it off the internet."""
    admin_port: int = Field(8081, ge=0, le=65535)
    """Admin port. 0: a free one."""
    admin_hosts: Annotated[str, checked_by(AdminHosts.parse)] = ""
    """Host names accepted by the admin port, comma-separated, also `*.example.org`. IP addresses, localhost and names without dots are
    always accepted. Other names get 421: a page at such a name could read the admin port in your browser (DNS rebinding)."""
    workers: int = Field(1, ge=1, le=1024)
    """Processes that serve the public port, about one per core. Each has its own upstream connections. Limits hold for all together."""
    worker_silence_seconds: float = Field(15.0, ge=0)
    """With several workers: a worker whose event loop is stuck for this time is killed and replaced. At least 1. 0: never, for debuggers
    that stop a worker."""
    public_url: str | None = None
    """URL at which browsers reach the public port, for the pages of the admin port. Not set: the page's own host, at GATEWAY_PORT."""
    services: Annotated[str, checked_by(parse_services)] = ""
    """Other services on the dashboard: `name=URL` of their status ports, comma-separated."""
    upstream: str = "http://127.0.0.1:8000"
    """Upstream of routes that name none, and of all requests without GATEWAY_CONFIG: an http or https URL. Its path is kept as a prefix."""
    config: Path | None = None
    """TOML file with `[[routes]]`. Without it, all requests go to GATEWAY_UPSTREAM, in mode direct."""
    data_dir: Path = Path("data/gateway")
    """Directory of the store for streams of resumable routes. They survive a restart. Without such a route nothing is written."""
    drain_seconds: float = Field(10.0, ge=0)
    """Time for open answers to finish after SIGTERM. Subscriptions (GET event streams) get a `retry` time and end at once."""
    max_streams: int = Field(10_000, ge=1)
    """Open requests, event streams included; beyond that: 503. Streams that may outlive their requests have a separate limit of the same
    size: shared streams, catch-ups and running streams of resumable routes."""
    max_streams_per_client: int = Field(2_000, ge=1)
    """Open requests per client; beyond that: 429. Streams that it opened and that may outlive their requests have the same limit. A client
    is the subject of its credential, otherwise an address (IPv6: a /64)."""
    max_requests_per_second_per_client: int = Field(0, ge=0)
    """Requests per second and client, with a burst of one second's worth; beyond that: 429. 0: no limit."""
    max_bytes_per_second_per_client: int = Field(0, ge=0)
    """Bytes per second sent to one client, all its answers together; beyond that, its streams pause at the end of a block. 0: no limit."""
    trusted_proxies: Annotated[str, checked_by(TrustedProxies.parse)] = ""
    """Proxies in front whose `Forwarded` and `X-Forwarded-*` fields are trusted: addresses and networks (`10.0.0.0/8`), comma-separated.
    From other peers these fields are dropped."""
    max_request_body_bytes: int = Field(2**30, ge=0)
    """Largest request body in bytes; beyond that: 413. Bodies are streamed, not kept."""
    max_history_bytes: int = Field(256 * 2**20, ge=1)
    """Bytes in memory for all histories of shared streams and for unsent data of slow connections. Beyond that, the largest of the client
    that holds the most give way."""
    max_kept_bytes: int = Field(64 * 2**20, ge=1)
    """Bytes in memory for all streams of resumable routes. Ended ones move to the store."""
    max_store_bytes: int = Field(4 * 2**30, ge=2**20)
    """Approximate bytes on disk for all streams of resumable routes. Beyond that, ended streams are dropped: those of the client that has
    the most, oldest first."""
    max_held_body_bytes: int = Field(256 * 2**20, ge=1)
    """Bytes in memory for all request bodies until their upstreams have received them; beyond that: 503."""
    max_share_per_client: float = Field(0.5, gt=0, le=1)
    """Share of each limit in bytes (histories, kept streams, their store, request bodies) that one client may use; beyond that, its own
    memory gives way. What several clients use together, such as a shared stream, counts for none of them."""
    max_header_bytes: int = Field(16_384, ge=1024)
    """Longest first line and longest header field in bytes, of requests and answers. All fields together may have four times as many."""
    keepalive_seconds: float = Field(75.0, gt=0)
    """Idle time after which a client connection is closed."""
    head_seconds: float = Field(15.0, gt=0)
    """Time limit for the head of a request, from its first byte; then 408."""
    upstream_keepalive_seconds: float = Field(4.0, ge=0)
    """Time for which an idle upstream connection is kept for reuse. Below uvicorn's 5 s, so that no request meets a closing connection."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level that is logged. `debug` has a line when a stream opens, `info` one when it closes."""

    def share_of(self, limit: int) -> int:
        """Return one client's share of a limit."""
        return max(1, int(limit * self.max_share_per_client))

    @field_validator("worker_silence_seconds")
    @classmethod
    def _silence_is_longer_than_a_busy_moment(cls, seconds: float) -> float:
        if 0 < seconds < 1:
            raise ValueError("must be 0 or at least 1, because a busy worker may be silent for a moment")
        return seconds

    @field_validator("public_url")
    @classmethod
    def _public_url_is_a_url(cls, url: str | None) -> str | None:
        if url is not None and not re.fullmatch(r"https?://[^\s;,/?#@]+(/[^\s;,?#]*)?", url):
            raise ValueError("must be a URL like https://host or http://host:port/prefix, without query or credentials")
        return url and url.rstrip("/")
