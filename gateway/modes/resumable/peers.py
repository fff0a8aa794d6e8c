"""The other workers of this gateway. A client that resumes a kept stream may reach any of them."""

import asyncio
import hashlib
import json
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

import aiohttp
import structlog
from aiohttp import web
from multidict import CIMultiDict, istr

from ...access.exchange import Exchange
from ...access.expiry import end_at_expiry
from ...http.asking import UpstreamAnswer
from ...http.connection import comes_from_peer
from ...http.incoming import Incoming
from ...http.paths import open_session
from ...policy.caller import Caller
from ...policy.deletion import Deletion
from ...policy.paths import STREAMS_PATH
from ...policy.routes import Route
from ...streams.wheel import TimerWheel
from ..body import Bodies
from ..direct import Direct
from ..observer import Observer
from .asked import Asked
from .store import StoreError, StreamHead

log = structlog.get_logger()

_QUERY_SECONDS = 2.0
_NUMBER_DIGITS = 3  # of a stream's ID: the number of its worker
_CALLER = istr("Gateway-Caller")
_URL = "http://worker"  # the Unix socket says which
_STREAMS = Route.model_validate({"path": STREAMS_PATH, "upstream": _URL})


class _OtherWorker(Direct):
    """Another worker as an upstream."""

    async def relay(self, request: web.BaseRequest, upstream: UpstreamAnswer, exchange: Exchange) -> web.StreamResponse:
        assert isinstance(request, Incoming)
        request.answer_fields[_CALLER] = ""  # clients must not get it
        if _CALLER in upstream.headers:
            report = json.loads(upstream.headers[_CALLER])
            exchange.known_route = exchange.route.model_copy(update={"path": report["route"]})
            exchange.caller = Caller("", b"", report["expires_at"], report["key"])
            if exchange.caller.expires_at:
                end_at_expiry(exchange, exchange.caller.expires_at)
        return await super().relay(request, upstream, exchange)


class Peers:
    """The other workers: find the one that has a stream, and hand requests off to it, on a Unix socket.

    A stream's ID begins with the number of its worker. The Idempotency-Key of a stream determines its worker, so that requests with the
    same key find it from every worker.
    """

    def __init__(self, number: int = 0, paths: Sequence[str] = ("",)) -> None:
        self._number = number
        self._paths = paths
        self._directs: dict[int, _OtherWorker] = {}
        self._sessions: list[aiohttp.ClientSession] = []
        self.send_deletion: Callable[[Deletion], None] = lambda deletion: None
        """Sends a deletion by an upstream to the other workers."""

    def __repr__(self) -> str:
        return f"<Peers number={self._number} of {len(self._paths)}>"

    @property
    def path(self) -> str:
        """Path of the Unix socket for requests from other workers; empty without any."""
        return self._paths[self._number]

    def open(self, wheel: TimerWheel, bodies: Bodies, keepalive_seconds: float, max_header_bytes: int) -> None:
        """Open sessions to the other workers. `close` closes them."""
        for number, path in enumerate(self._paths):
            if number != self._number:
                session = open_session(keepalive_seconds=keepalive_seconds, max_header_bytes=max_header_bytes, unix_path=path)
                self._sessions.append(session)
                self._directs[number] = _OtherWorker(session, wheel, Observer(), bodies)  # counted by the worker that received the request

    async def close(self) -> None:
        """Close the connections to the other workers."""
        for session in self._sessions:
            await session.close()

    def new_stream_id(self) -> str:
        """Return a stream ID that cannot be guessed: 32 hexadecimal digits with 116 random bits."""
        return f"{self._number:0{_NUMBER_DIGITS}x}{secrets.token_hex(16)[_NUMBER_DIGITS:]}"

    def directory(self, data_dir: Path) -> Path:
        """Return the directory for this worker's streams."""
        return data_dir / f"worker-{self._number}" if self._number else data_dir

    def worker_of_stream(self, id: str) -> int | None:
        """Return the other worker that has a stream, or None if it is this one or there is none."""
        try:
            return self._other(int(id[:_NUMBER_DIGITS], 16))
        except ValueError:
            return None

    def worker_of_key(self, head: StreamHead) -> int | None:
        """Return the other worker for streams with this Idempotency-Key, or None if it is this one."""
        digest = hashlib.sha256(b"\0".join((head.route.encode(), head.credentials, head.key.encode("utf-8", "surrogateescape")))).digest()
        return self._other(int.from_bytes(digest[:4], "big") % len(self._paths))

    async def find_worker(self, asked: Asked, newer_than: float = 0.0) -> int | None:
        """Return the other worker with the newest answer that is asked for, opened after this Unix time, or None. Raises StoreError."""
        if not asked.may_be_elsewhere:
            return None
        question = asked.encode()
        answers = await asyncio.gather(*(_ask(direct, question) for direct in self._directs.values()))
        opened_at = {number: answer for number, answer in zip(self._directs, answers, strict=True) if answer > newer_than}
        return max(opened_at, key=opened_at.__getitem__, default=None)

    def _other(self, number: int) -> int | None:
        return number if number in self._directs else None

    async def hand_off(self, number: int, request: web.BaseRequest, exchange: Exchange) -> web.StreamResponse:
        """Hand a request off to another worker, and return its answer."""
        exchange.to_peer = True
        credentials = request.caller.credentials.hex() if isinstance(request, Incoming) and request.caller is not None else ""
        caller = json.dumps({"credentials": credentials, "owner": exchange.owner})
        route = exchange.known_route or _STREAMS
        fields = {**route.request_headers, _CALLER: caller}
        exchange.known_route = route.model_copy(update={"upstream": _URL, "request_headers": fields, "on_upstream_loss": "abort"})
        return await self._directs[number].answer(request, exchange)


async def _ask(worker: Direct, question: bytes) -> float:
    """Return the Unix time at which another worker has opened the answer that is asked for, or 0 without one, or without a reply.

    Raises StoreError if it cannot read its store.
    """
    try:
        async with asyncio.timeout(_QUERY_SECONDS):
            fields = CIMultiDict[str]()
            timeout = aiohttp.ClientTimeout(total=_QUERY_SECONDS)
            answer = await worker.client.ask("POST", _URL, STREAMS_PATH, fields=fields, data=question, timeout=timeout)
            try:
                if answer.status == 503:
                    raise StoreError("another worker cannot read its store")
                return float(await answer.content.read()) if answer.status == 200 else 0.0
            finally:
                answer.close()
    except (TimeoutError, aiohttp.ClientError) as error:
        log.warning("another worker did not answer whether it has a stream", detail=str(error) or type(error).__name__)
        return 0.0


def restore_caller(request: Incoming) -> None:
    """Set the caller of a request that another worker has handed off, from its field. From clients the field is dropped."""
    handed_off = comes_from_peer(request)
    if handed_off:
        request.answer_fields[_CALLER] = ""  # an upstream's field of this name is dropped
    field = request.headers.get(_CALLER)
    if field is None:
        return
    request.forget(_CALLER)
    if handed_off:
        caller = json.loads(field)
        request.owner_at_peer = caller["owner"]
        if caller["credentials"]:
            request.caller = Caller("", bytes.fromhex(caller["credentials"]))


def report_resumption(request: Incoming, exchange: Exchange) -> None:
    """Report to the worker that handed a request off the route, and the expiry of the credential, at which it ends the answer."""
    caller = exchange.caller or Caller("", b"")
    report = {"route": exchange.route.path, "expires_at": caller.expires_at, "key": caller.key}
    request.answer_fields[_CALLER] = json.dumps(report)
