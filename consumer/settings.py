"""The consumer's settings and their defaults."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from eventstream.client import EventSource
from service.settings import ServiceSettings

from .source import strip_secrets

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class ConsumerSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="CONSUMER_")
    removed_variables: ClassVar[Mapping[str, str]] = {
        "CONSUMER_SYNC_INTERVAL_MS": "with CONSUMER_SYNC=interval lines are synced once a second",
        "CONSUMER_MAX_PENDING_BYTES": "reading pauses while 8 MiB wait to become durable",
        "CONSUMER_CONNECT_TIMEOUT_SECONDS": "the source may take 10 s to accept a connection",
        "CONSUMER_REFUSED_RETRY_SECONDS": "a source that refuses is tried again after 30 s, then less often, up to every 300 s",
        "CONSUMER_WRITE_RETRY_SECONDS": "a write that failed is tried again after 1 s, then less often, up to every 30 s",
        "CONSUMER_STDOUT_STALL_SECONDS": "a reader of standard output is waited for while it has stopped for less than 5 s",
    }

    source_url: str = "http://127.0.0.1:8080/"
    """The event stream to log. The log and the status port show it without its credentials and its query."""
    source_method: Annotated[str, Field(pattern="^[A-Z]+$")] = "GET"
    """The method of each request, in capitals."""
    source_body: str = ""
    """The body of each request; sent again on reconnection."""
    source_headers: SecretStr | None = None
    """A JSON object of further request headers, for example {"Authorization": "Bearer ..."}. Never logged."""
    log_dir: Path = Path("data/consumer")
    """The directory of the log; it is created if missing. Only one consumer at a time may use it."""
    host: str = "127.0.0.1"
    """The address of the status port."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8082
    """The status port: /livez, /readyz, /metrics. 0: any free port."""
    sync: Literal["always", "interval"] = "always"
    """When lines are synced to the disk: `always` before an event counts as logged, or once a second (`interval`)."""
    segment_max_bytes: Count = 64 * 1024 * 1024
    """The size in bytes beyond which a segment is closed and compressed, and a new one begun."""
    segment_max_age_seconds: Positive = 86_400
    """The age of a segment's first event beyond which the same happens; checked when the next event comes."""
    retain_max_bytes: Annotated[int, Field(ge=0)] = 10 * 1024 * 1024 * 1024
    """The total size on disk beyond which the oldest segments are removed; 0: no limit. The newest one stays."""
    retain_max_age_seconds: Annotated[float, Field(ge=0)] = 0
    """The age of a segment's newest event beyond which the segment is removed; 0: no limit. The newest one stays."""
    repeat_window: Annotated[int, Field(ge=1)] = 100_000
    """The number of newest events with an ID that are remembered, also across restarts, to drop repeats."""
    gaps_from_ids: bool = True
    """Whether IDs that counted one by one and jump at a reconnection are logged as a gap. Set it to false for some topics of many:
    their IDs count all topics, and the producer reports gaps itself."""
    max_block_bytes: Count = 8 * 1024 * 1024
    """The largest event block that is accepted, in bytes."""
    read_timeout_seconds: Positive = 60
    """Seconds without a byte after which a connection is dropped and opened again. The gateway's heartbeat comes every 15 s."""
    reconnect_initial_seconds: Annotated[float, Field(ge=0)] = 3
    """The reconnection time in seconds, until the source sends `retry`."""
    reconnect_maximum_seconds: Annotated[float, Field(ge=0)] = 60
    """The longest delay that back-off reaches while attempts fail."""
    stdout: bool = True
    """Whether each logged event is written to standard output too. A slow reader slows the consumer, unless it stops for 5 s."""
    drain_seconds: Annotated[float, Field(ge=0)] = 5
    """At SIGTERM, seconds that events that were read may take to become durable. The rest is requested again at the next start."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The lowest level that is logged."""

    @model_validator(mode="after")
    def _source_can_be_requested(self) -> Self:
        try:
            parts = urlsplit(self.source_url)
            usable = parts.scheme.lower() in ("http", "https") and bool(parts.hostname)
        except ValueError:
            usable = False
        if not usable:
            shown = strip_secrets(self.source_url)
            raise ValueError(f"CONSUMER_SOURCE_URL must be an absolute http or https URL, got {shown!r}")
        headers = self.headers()
        try:
            EventSource(self.source_url, headers=headers)
        except ValueError as error:
            reason = str(error).partition(":")[0]  # after the colon comes the value
            raise ValueError(f"CONSUMER_SOURCE_URL or CONSUMER_SOURCE_HEADERS: {reason}") from None
        return self

    def headers(self) -> dict[str, str]:
        """Return `source_headers` parsed. Raises ValueError without showing the value."""
        text = "" if self.source_headers is None else self.source_headers.get_secret_value()
        try:
            headers = json.loads(text) if text else {}
        except ValueError:
            headers = None
        if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
            raise ValueError('CONSUMER_SOURCE_HEADERS must be a JSON object of strings, for example {"Authorization": "Bearer ..."}')
        return headers
