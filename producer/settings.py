"""The producer's settings: the environment variables that start with `PRODUCER_`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from service.settings import ServiceSettings, checked_by

from .web.origins import ANY_ORIGIN, parse_origins
from .web.publish_keys import PublishKeys

LONGEST_INTERVAL_MS = 60_000


class Settings(ServiceSettings):
    """The producer's settings; frozen, and complete with their defaults."""

    model_config = SettingsConfigDict(env_prefix="PRODUCER_")
    removed_variables: ClassVar[Mapping[str, str]] = {
        "PRODUCER_LOG_SYNC_INTERVAL_MS": "with PRODUCER_LOG_SYNC=interval events are synced once a second",
        "PRODUCER_MAX_INTERVAL_MS": f"interval_ms may be up to {LONGEST_INTERVAL_MS}",
        "PRODUCER_MAX_REPEAT": "repeat may be up to 10000",
    }

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for every IPv4 interface."""

    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """TCP port to listen on; 0 takes a free one, which the log line `listening` names."""

    log_dir: Path = Path("./data/producer")
    """Directory of the event log with the topics; it is created if missing. Only one producer at a time may use it."""

    log_sync: Literal["always", "interval"] = "always"
    """When a published event is acknowledged. always: after a sync to disk; interval: before, with a sync each second, so a power failure
    may take back the events of a second. A crash of the process alone loses nothing."""

    retain_max_age_seconds: Annotated[float, Field(ge=0)] = 604_800
    """Age in seconds beyond which events are removed; 0: no limit."""

    retain_max_events: Annotated[int, Field(ge=0)] = 10_000_000
    """The most events that are kept over all topics; 0: no limit."""

    retain_max_bytes: Annotated[int, Field(ge=0)] = 1024 * 1024 * 1024
    """The most bytes of events that are kept; 0: no limit. The file is larger, for short events by about half."""

    idempotency_seconds: Annotated[float, Field(gt=0)] = 86_400
    """How long an Idempotency-Key is known, in seconds; at most the newest ten million are kept."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The lowest level that is logged: debug, info, warning or error."""

    text: Annotated[str, Field(min_length=1)] = "七夕情人节即将来临,我们为您准备了精美的鲜花和美味的蛋糕"
    """Text that `GET /` and `GET /plain` stream."""

    interval_ms: Annotated[int, Field(ge=0, le=LONGEST_INTERVAL_MS)] = 100
    """Milliseconds between events, unless the query sets them; 0 means as fast as the client reads."""

    max_message_chars: Annotated[int, Field(ge=1, le=10_000_000)] = 16_384
    """The longest `message` that a POST may have, in characters (Unicode code points)."""

    retry_ms: Annotated[int, Field(ge=0, le=86_400_000)] = 15_000
    """Reconnection time in every event (`retry:`), in milliseconds."""

    heartbeat_seconds: Annotated[float, Field(gt=0, le=3600)] = 15.0
    """Longest silence of an open stream, in seconds, before a heartbeat comment is sent between two events."""

    send_timeout_seconds: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    """Seconds after which a client that reads nothing is disconnected."""

    drain_seconds: Annotated[int, Field(ge=1, le=3600)] = 8
    """Seconds after SIGTERM in which open streams may end before they are cut. Keep it below the container's stop timeout."""

    publish_keys: SecretStr = SecretStr("")
    """Keys, separated by commas, one of which a publisher must send as `Authorization: Bearer KEY`; empty: any client may publish."""

    max_event_bytes: Annotated[int, Field(ge=1, le=64 * 1024 * 1024)] = 1024 * 1024
    """The longest data of a published event, in bytes of UTF-8."""

    max_batch_events: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """The most events that are stored all or none: in a JSON array, and in each batch of an NDJSON body."""

    max_batch_bytes: Annotated[int, Field(ge=1, le=1024 * 1024 * 1024)] = 8 * 1024 * 1024
    """The longest JSON body, and the longest batch of an NDJSON body, in bytes."""

    topic_retry_ms: Annotated[int, Field(ge=0, le=86_400_000)] = 3000
    """Reconnection time that subscribers of topics receive (`retry:`), in milliseconds."""

    cors_origins: Annotated[str, checked_by(parse_origins)] = ANY_ORIGIN
    """Origins whose pages may read the streams: `*`, or origins separated by commas, or a JSON list of them; `[]` for none."""

    cors_credentials: bool | None = None
    """Whether those pages may send credentials (cookies). The default is yes with named origins and no with `*`."""

    demo: bool = True
    """Whether the topics `demo.host` (CPU, memory and network of the machine) and `demo.clock` get an event each second."""

    @field_validator("publish_keys")
    @classmethod
    def _keys_can_be_sent(cls, value: SecretStr) -> SecretStr:
        PublishKeys.parse(value.get_secret_value())
        return value

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.max_batch_bytes < self.max_event_bytes:
            raise ValueError(
                f"PRODUCER_MAX_BATCH_BYTES must be at least PRODUCER_MAX_EVENT_BYTES ({self.max_event_bytes}), got {self.max_batch_bytes}"
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
        """Whether pages may send credentials, from `cors_credentials` and its default."""
        if self.cors_credentials is not None:
            return self.cors_credentials
        return ANY_ORIGIN not in self.allowed_origins
