"""What can be set from outside: the environment variables that start with `PRODUCER_`."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from service.settings import ServiceSettings

from .web.origins import ANY_ORIGIN, parse_origins
from .web.publish_keys import PublishKeys


class Settings(ServiceSettings):
    """The producer's settings; frozen, and complete with their defaults."""

    model_config = SettingsConfigDict(env_prefix="PRODUCER_")

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for every IPv4 interface."""

    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """TCP port to listen on; 0 takes a free one, which the log line `listening` names."""

    log_dir: Path = Path("./data/producer")
    """Folder of the event log that topics are kept in; made if need be. One producer at a time."""

    log_sync: Literal["always", "interval"] = "always"
    """When a published event is acknowledged: always: when it is synced to disk; interval: before, a power failure may take it back."""

    log_sync_interval_ms: Annotated[int, Field(ge=1, le=60_000)] = 1000
    """How long an event may stay unsynced with PRODUCER_LOG_SYNC=interval, in milliseconds. A crash of the process alone loses nothing."""

    retain_max_age_seconds: Annotated[float, Field(ge=0)] = 604_800
    """Older events are removed, in seconds; 0: no limit."""

    retain_max_events: Annotated[int, Field(ge=0)] = 10_000_000
    """So many events are kept at most, over all topics; 0: no limit."""

    retain_max_bytes: Annotated[int, Field(ge=0)] = 1024 * 1024 * 1024
    """So many bytes of events are kept at most; 0: no limit. The file is larger, of short events about half as much again."""

    idempotency_seconds: Annotated[float, Field(gt=0)] = 86_400
    """How long an Idempotency-Key is known, in seconds; the newest ten million of them at most."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level that is logged: debug, info, warning or error."""

    text: Annotated[str, Field(min_length=1)] = "七夕情人节即将来临,我们为您准备了精美的鲜花和美味的蛋糕"
    """Text that `GET /` and `GET /plain` stream."""

    interval_ms: Annotated[int, Field(ge=0)] = 100
    """Milliseconds from one event to the next, unless the query says otherwise; 0 means as fast as the client reads."""

    max_interval_ms: Annotated[int, Field(ge=0)] = 60_000
    """Longest `interval_ms` that a query may ask for, in milliseconds."""

    max_repeat: Annotated[int, Field(ge=1)] = 10_000
    """How often a query may have its text streamed at most (`repeat`)."""

    max_message_chars: Annotated[int, Field(ge=1, le=10_000_000)] = 16_384
    """Longest `message` that a POST may carry, in characters (Unicode code points)."""

    retry_ms: Annotated[int, Field(ge=0, le=86_400_000)] = 15_000
    """Reconnection time that every event tells its client (`retry:`), in milliseconds."""

    heartbeat_seconds: Annotated[float, Field(gt=0, le=3600)] = 15.0
    """Longest silence in an open stream, in seconds: then a comment goes out, always between two events."""

    send_timeout_seconds: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    """A client that takes none of what was sent to it for so many seconds is cut off."""

    drain_seconds: Annotated[int, Field(ge=1, le=3600)] = 8
    """Seconds from SIGTERM in which open streams end; what is open then is cut off. Keep below the container's stop timeout."""

    publish_keys: SecretStr = SecretStr("")
    """Keys, separated by commas, of which a publisher must send one as `Authorization: Bearer KEY`; empty: anyone may publish."""

    max_event_bytes: Annotated[int, Field(ge=1, le=64 * 1024 * 1024)] = 1024 * 1024
    """Longest data that an event of a topic may have, in bytes of UTF-8."""

    max_batch_events: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Most events that are published as one, all or none of them: by a JSON array, and per piece of a longer NDJSON body."""

    max_batch_bytes: Annotated[int, Field(ge=1, le=1024 * 1024 * 1024)] = 8 * 1024 * 1024
    """Longest JSON body, and longest piece of an NDJSON body that is published as one, in bytes."""

    topic_retry_ms: Annotated[int, Field(ge=0, le=86_400_000)] = 3000
    """Reconnection time that every subscriber of topics is told (`retry:`), in milliseconds."""

    cors_origins: str = ANY_ORIGIN
    """Origins whose pages may read the streams: `*`, or origins separated by commas, or a JSON list of them; `[]` for none."""

    cors_credentials: bool | None = None
    """Whether those pages may send credentials (cookies). Not set means: yes with named origins, no with `*`."""

    demo: bool = True
    """Whether the topics `demo.host` (CPU, memory and network of the machine) and `demo.clock` are published to each second."""

    @field_validator("cors_origins")
    @classmethod
    def _origins_make_sense(cls, value: str) -> str:
        parse_origins(value)
        return value

    @field_validator("publish_keys")
    @classmethod
    def _keys_can_be_sent(cls, value: SecretStr) -> SecretStr:
        PublishKeys.parse(value.get_secret_value())
        return value

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.interval_ms > self.max_interval_ms:
            raise ValueError(f"PRODUCER_INTERVAL_MS is {self.interval_ms}, PRODUCER_MAX_INTERVAL_MS allows {self.max_interval_ms}")
        if self.max_batch_bytes < self.max_event_bytes:
            raise ValueError(
                f"PRODUCER_MAX_BATCH_BYTES is {self.max_batch_bytes}, which has no room for an event of PRODUCER_MAX_EVENT_BYTES, "
                f"{self.max_event_bytes}"
            )
        if self.cors_credentials and ANY_ORIGIN in self.allowed_origins:
            raise ValueError(
                "PRODUCER_CORS_CREDENTIALS is true while PRODUCER_CORS_ORIGINS is *: any page could read as its visitor; name the origins"
            )
        return self

    @property
    def allowed_origins(self) -> tuple[str, ...]:
        """The origins of `cors_origins`, one by one."""
        return parse_origins(self.cors_origins)

    @property
    def credentials_allowed(self) -> bool:
        """What `cors_credentials` comes to."""
        if self.cors_credentials is not None:
            return self.cors_credentials
        return ANY_ORIGIN not in self.allowed_origins
