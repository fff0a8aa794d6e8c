"""Append events to the log for publishers, once for each idempotency key, and return their positions."""

import hashlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

import structlog

from ..log.event_log import Appended, EventLog, IdempotencyKey, KeyReused, LogError, LogFull, format_event_id
from ..web.meters import Meters
from ..web.problems import Problem, refuse_field
from .event_bodies import Limits, RefusedEvent, decode_json, encode_event, split_lines

_log = structlog.get_logger()


@dataclass(slots=True)
class Published:
    """The published events of one request."""

    count: int = 0
    pieces: list[Appended] = field(default_factory=list)

    def add(self, appended: Appended) -> None:
        """Add another batch."""
        self.pieces.append(appended)
        self.count += appended.last - appended.first + 1

    @property
    def repeated(self) -> bool:
        """Whether all events had been stored before."""
        return all(piece.repeated for piece in self.pieces)

    def describe(self, epoch: str) -> dict[str, object]:
        """Return count and ids; every single id when it was one batch, whose ids have no holes."""
        ids = {"first_id": format_event_id(epoch, self.pieces[0].first), "last_id": format_event_id(epoch, self.pieces[-1].last)}
        if len(self.pieces) > 1:
            return {"count": self.count, **ids}
        [piece] = self.pieces
        return {"count": self.count, **ids, "ids": [format_event_id(epoch, offset) for offset in range(piece.first, piece.last + 1)]}


class Publisher:
    """Append to the event log, count, and turn the log's results into answers."""

    def __init__(self, log: EventLog, meters: Meters, limits: Limits) -> None:
        self._log = log
        self._meters = meters
        self._limits = limits
        meters.log_writable.set(1)
        self._writable = True

    def __repr__(self) -> str:
        return f"<Publisher writable={self._writable}>"

    async def publish(self, topic: str, blocks: Sequence[bytes], key_name: str | None, *, more: bool = False) -> Appended:
        """Append `blocks`, all or none. `more` says that the same request continues, so an idempotency key identifies other content.

        Raises Problem: 422 for a key that was used with other content, 507 for a full device, 503 when the log fails.
        """
        key = None if key_name is None else IdempotencyKey(key_name, _fingerprint(blocks, more))
        began = time.perf_counter()
        try:
            appended = await self._log.append(topic, blocks, key)
        except KeyReused:
            detail = "was used before with another body; send the same body, or a new key"
            raise refuse_field("header", "Idempotency-Key", detail) from None
        except LogError as error:
            raise self.fail(error) from None
        self._count(appended, blocks, time.perf_counter() - began)
        return appended

    async def publish_lines(self, topic: str, body: AsyncIterator[bytes], key_name: str | None) -> Published:
        """Publish lines of JSON as they arrive, in batches as large as the limits allow, each all or none.

        Raises Problem, which says what was stored before.
        """
        published = Published()
        blocks: list[bytes] = []
        size = 0

        async def flush(more: bool) -> None:
            name = key_name if key_name is None or not published.pieces else f"{key_name}\n{len(published.pieces)}"  # no key has an LF
            published.add(await self.publish(topic, blocks, name, more=more))

        try:
            async for number, line in split_lines(body, self._limits):
                try:
                    block = encode_event(decode_json(line), self._limits)
                except RefusedEvent as error:
                    raise error.problem(line=number) from None
                if len(blocks) == self._limits.batch_events or size + len(line) > self._limits.batch_bytes:
                    await flush(more=True)
                    blocks, size = [], 0
                blocks.append(block)
                size += len(line)
            if not blocks:
                raise RefusedEvent("body", "has no event").problem()
            await flush(more=False)
        except Problem as problem:
            if published.pieces:
                stored = published.describe(self._log.epoch)
                raise Problem(
                    problem.status_code,
                    f"{problem.detail}; the first {published.count} events of the body are stored already",
                    headers=problem.headers,
                    **{**problem.facts, "stored": stored},
                ) from None
            raise
        return published

    def _count(self, appended: Appended, blocks: Sequence[bytes], seconds: float) -> None:
        if not self._writable:
            self._writable = True
            self._meters.log_writable.set(1)
            _log.info("event log can be written again")
        self._meters.append_seconds.observe(seconds)
        if appended.repeated:
            self._meters.repeated_events.inc(len(blocks))
        else:
            self._meters.stored_events.inc(len(blocks))
            self._meters.stored_bytes.inc(sum(map(len, blocks)))

    def fail(self, error: LogError) -> Problem:
        """Record a failed write, and return the answer for its publisher."""
        if self._writable:
            self._writable = False
            self._meters.log_writable.set(0)
            _log.error("event log cannot be written", error=str(error))
        if isinstance(error, LogFull):
            detail = "there is no space left to store events; nothing was stored, retry later"
            return Problem(HTTPStatus.INSUFFICIENT_STORAGE, detail, headers={"Retry-After": "30"})
        detail = "the event log could not store the events; the producer's own log says why"
        return Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers={"Retry-After": "5"})


def _fingerprint(blocks: Sequence[bytes], more: bool) -> bytes:
    """Return a digest of the content. Blocks delimit themselves, so joining them is unambiguous."""
    digest = hashlib.blake2b(b"more" if more else b"all", digest_size=16)
    for block in blocks:
        digest.update(block)
    return digest.digest()
