"""Settings of the gateway, from `GATEWAY_*` environment variables."""

import re
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from service.settings import ServiceSettings

from ..observe.dashboard.services import parse_services
from .admin_hosts import AdminHosts
from .trusted_proxies import TrustedProxies


class Settings(ServiceSettings):
    """What can be set for the whole gateway; what can be set per route stands in `gateway.policy.routes.Route`."""

    model_config = SettingsConfigDict(env_prefix="GATEWAY_")
    others_variables: ClassVar[frozenset[str]] = frozenset(("GATEWAY_PYTHON",))  # the interpreter that benchmarks start the gateway with

    host: str = "127.0.0.1"
    """Address to listen on for subscribers."""
    port: int = Field(8080, ge=0, le=65535)
    """Port to listen on for subscribers; 0 takes a free one."""
    admin_host: str = "127.0.0.1"
    """Address of the admin port: health and metrics. Keep it off the internet."""
    admin_port: int = Field(8081, ge=0, le=65535)
    """Port of the admin surface; 0 takes a free one."""
    admin_hosts: str = ""
    """Names by which the admin port may be asked, beside IP addresses, localhost and names without dots: host names between commas, also
    `*.example.org`. Other names are refused, because their owners could read it with a page in your browser."""
    workers: int = Field(1, ge=1, le=1024)
    """Processes that serve the public port, each on a core of its own, with its own upstream connections. Limits hold for all together."""
    worker_silence_seconds: float = Field(15.0, ge=0)
    """With several workers: one whose event loop has done nothing for so long, which is stuck, is killed and started again. At least 1; 0:
    never, for debuggers that stop a worker."""
    public_url: str | None = None
    """Where browsers reach the public port, for the pages of the admin port: a URL. Not set: the page's own host, at GATEWAY_PORT."""
    services: str = ""
    """Services beside the gateway that the dashboard shows: `name=URL`, separated by commas, of their status ports."""
    upstream: str = "http://127.0.0.1:8000"
    """Where requests go for which GATEWAY_CONFIG names no other upstream: an http or https URL; its path is kept as a prefix."""
    config: Path | None = None
    """A TOML file with `[[routes]]`. Without one, everything goes to GATEWAY_UPSTREAM, in mode direct."""
    data_dir: Path = Path("data/gateway")
    """Where streams of resumable routes are kept, so that they outlive a restart. Without such a route nothing is written."""
    drain_seconds: float = Field(10.0, ge=0)
    """How long answers may still run after SIGTERM. Subscriptions (GET event streams) are told to come back and end at once."""
    max_streams: int = Field(10_000, ge=1)
    """Requests that may be open at once, event streams included; more are answered 503. The same holds for the streams that may outlive
    their requests: shared streams and catch-ups."""
    max_streams_per_client: int = Field(2_000, ge=1)
    """Requests that one client may have open at once; more are answered 429. A client is whom a credential names, else an address, of IPv6
    a /64."""
    max_requests_per_second_per_client: int = Field(0, ge=0)
    """Requests that one client may make a second, a second's worth of them at once; more are answered 429. 0: no limit."""
    max_bytes_per_second_per_client: int = Field(0, ge=0)
    """Bytes of answers that one client is sent a second, by all its streams together; then they wait where a block ends. 0: no limit."""
    trusted_proxies: str = ""
    """Proxies in front that are believed when they say who asked them (`Forwarded`, `X-Forwarded-*`): addresses and networks
    (`10.0.0.0/8`) between commas. From anybody else these fields are dropped."""
    max_request_body_bytes: int = Field(2**30, ge=0)
    """Longest request body in bytes; longer ones are answered 413. Bodies are streamed, not kept."""
    max_history_bytes: int = Field(256 * 2**20, ge=1)
    """What the histories of all shared streams, and connections that do not take what is written to them, may hold in bytes, all together;
    those of the client that holds the most give way, the largest first."""
    max_kept_bytes: int = Field(64 * 2**20, ge=1)
    """What streams of resumable routes may hold in memory, all together, in bytes. Those that have ended live on in the store."""
    max_store_bytes: int = Field(4 * 2**30, ge=2**20)
    """What streams of resumable routes may take of the disk, all together, in bytes, about. Those that have ended give way: first
    those of the client that has the most, the oldest of them first."""
    max_held_body_bytes: int = Field(256 * 2**20, ge=1)
    """What bodies of requests may hold in memory, all together, in bytes, until their upstreams have taken them; more are answered 503."""
    max_share_per_client: float = Field(0.5, gt=0, le=1)
    """What one client may have of each limit in bytes (histories, kept streams, their store, bodies of requests), as a part of it. Beyond,
    what it holds gives way. What clients use together, such as a shared stream, counts for none of them."""
    max_header_bytes: int = Field(16_384, ge=1024)
    """Longest first line, and longest header field, in bytes, from either side; all fields together may have four times as many."""
    keepalive_seconds: float = Field(75.0, gt=0)
    """How long a client connection may be idle before a request."""
    head_seconds: float = Field(15.0, gt=0)
    """How long the head of a request may take from its first byte; then it is answered 408."""
    upstream_keepalive_seconds: float = Field(4.0, ge=0)
    """How long an idle upstream connection is kept for reuse. Below uvicorn's 5 s, so that a request never meets a closing connection."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe log line that is written; `debug` has a line when a stream opens, `info` one when it closes."""

    def share_of(self, limit: int) -> int:
        """Return what one client may have of a limit."""
        return max(1, int(limit * self.max_share_per_client))

    @field_validator("worker_silence_seconds")
    @classmethod
    def _silence_is_longer_than_a_busy_moment(cls, seconds: float) -> float:
        if 0 < seconds < 1:
            raise ValueError("must be 0 or at least 1: a busy worker may say nothing for a moment")
        return seconds

    @field_validator("trusted_proxies")
    @classmethod
    def _trusted_proxies_are_networks(cls, text: str) -> str:
        TrustedProxies.parse(text)
        return text

    @field_validator("admin_hosts")
    @classmethod
    def _admin_hosts_are_names(cls, text: str) -> str:
        AdminHosts.parse(text)
        return text

    @field_validator("services")
    @classmethod
    def _services_make_sense(cls, services: str) -> str:
        parse_services(services)
        return services

    @field_validator("public_url")
    @classmethod
    def _public_url_is_a_url(cls, url: str | None) -> str | None:
        if url is not None and not re.fullmatch(r"https?://[^\s;,/?#@]+(/[^\s;,?#]*)?", url):
            raise ValueError("must be a URL like https://host or http://host:port/prefix, without query or credentials")
        return url and url.rstrip("/")
