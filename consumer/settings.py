"""What the consumer can be told, and what it does when it is told nothing."""

import json
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from eventstream.client import EventSource
from service.settings import ServiceSettings, SettingsError

from .source import strip_secrets

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class ConsumerSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="CONSUMER_")

    source_url: str = "http://127.0.0.1:8080/"
    """The event stream to log. The log and the status port show it without its credentials and its query."""
    source_method: Annotated[str, Field(pattern="^[A-Z]+$")] = "GET"
    """The method of each request, in capitals."""
    source_body: str = ""
    """The body of each request; sent again on reconnection."""
    source_headers: SecretStr | None = None
    """A JSON object of further request headers, for example {"Authorization": "Bearer ..."}. Never logged."""
    log_dir: Path = Path("data/consumer")
    """The directory of the log; it is made when it is missing. One consumer at a time."""
    host: str = "127.0.0.1"
    """The address of the status port."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8082
    """The status port: /livez, /readyz, /metrics. 0: any free one."""
    sync: Literal["always", "interval"] = "always"
    """When what was written is made safe from a power cut: `always` before an event counts as logged, or every sync_interval_ms."""
    sync_interval_ms: Positive = 1000
    """Milliseconds from one sync to the next when sync is `interval`."""
    segment_max_bytes: Count = 64 * 1024 * 1024
    """A segment that would outgrow this is closed, compressed, and a new one begun."""
    segment_max_age_seconds: Positive = 86_400
    """The same for a segment whose first event is older than this; looked at when the next event comes."""
    retain_max_bytes: Annotated[int, Field(ge=0)] = 10 * 1024 * 1024 * 1024
    """The oldest segments are removed while all together take more than this on disk; 0: no limit. The newest one stays."""
    retain_max_age_seconds: Annotated[float, Field(ge=0)] = 0
    """Segments whose newest event is older than this are removed; 0: no limit. The newest one stays."""
    repeat_window: Annotated[int, Field(ge=1)] = 100_000
    """The number of newest events with an ID that are remembered, across restarts too, so that a repeat of one of them is dropped."""
    gaps_from_ids: bool = True
    """Whether IDs that counted one by one and jump at a reconnection are logged as a gap. Not right for some topics of many: the IDs count
    all of them, and the producer tells of gaps itself."""
    max_pending_bytes: Count = 8 * 1024 * 1024
    """Nothing more is read while this much waits to be durable (one event may be larger)."""
    max_block_bytes: Count = 8 * 1024 * 1024
    """The largest event block that is taken."""
    connect_timeout_seconds: Positive = 10
    """How long the source may take to accept a connection."""
    read_timeout_seconds: Positive = 60
    """A connection without a byte for this long is dropped and made anew. The gateway's heartbeat comes every 15 s."""
    reconnect_initial_seconds: Annotated[float, Field(ge=0)] = 3
    """The reconnection time until the source sends `retry`."""
    reconnect_maximum_seconds: Annotated[float, Field(ge=0)] = 60
    """The longest delay that back-off reaches while attempts fail."""
    refused_retry_seconds: Positive = 30
    """The delay after an answer that fails the connection for good (404, a wrong content type): a deploy may bring the route back.
    It doubles up to ten times itself while the answer stays so."""
    write_retry_seconds: Positive = 1
    """The delay after a write to the log failed (disk full); it doubles up to 30 s."""
    stdout: bool = True
    """Whether each logged event is written to standard output too."""
    stdout_stall_seconds: Annotated[float, Field(ge=0)] = 5
    """A slow reader of standard output slows the consumer; one that takes nothing for this long is not waited for any more."""
    drain_seconds: Annotated[float, Field(ge=0)] = 5
    """At SIGTERM, how long events that were read may take to be durable. What is not will be asked for again."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe facts that are logged."""

    def check(self) -> None:
        """Raises SettingsError for what only makes sense as a whole; the messages show no secrets."""
        try:
            parts = urlsplit(self.source_url)
            usable = parts.scheme.lower() in ("http", "https") and bool(parts.hostname)
        except ValueError:
            usable = False
        if not usable:
            shown = strip_secrets(self.source_url)
            raise SettingsError(f"CONSUMER_SOURCE_URL={shown!r}: must be an absolute URL with http or https")
        headers = self.headers()
        try:
            EventSource(self.source_url, headers=headers)
        except ValueError as error:
            reason = str(error).partition(":")[0]  # behind the colon comes the value
            raise SettingsError(f"CONSUMER_SOURCE_URL or CONSUMER_SOURCE_HEADERS: {reason}") from None

    def headers(self) -> dict[str, str]:
        """Gives `source_headers` parsed. Raises SettingsError without showing the value."""
        text = "" if self.source_headers is None else self.source_headers.get_secret_value()
        try:
            headers = json.loads(text) if text else {}
        except ValueError:
            headers = None
        if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
            raise SettingsError('CONSUMER_SOURCE_HEADERS: must be a JSON object of strings, for example {"Authorization": "Bearer ..."}')
        return headers
