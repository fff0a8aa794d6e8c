"""The public keys of token issuers, from their JWKS URLs (RFC 7517)."""

import asyncio
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp
import jwt
import structlog
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from yarl import URL

from .tokens import PublicKey, algorithms_of

log = structlog.get_logger()

_MOST_BYTES = 2**20
_MOST_KEYS = 100


class KeysUnavailable(Exception):
    """There are no keys to check a token with: none came, or the last ones are too old. Asking again helps after `retry_after_seconds`."""

    def __init__(self, retry_after_seconds: float) -> None:
        super().__init__(retry_after_seconds)
        self.retry_after_seconds = max(0.0, retry_after_seconds)


class _Unusable(ValueError):
    """What a URL answered is no set of keys; the message says why."""


@dataclass(frozen=True, slots=True)
class KeySource:
    """Where keys come from, and for how long they are good."""

    url: str
    max_age_seconds: float = 600.0
    """Older keys are fetched anew before they are used."""
    keep_seconds: float = 86_400.0
    """How old they may grow while the URL does not answer with new ones."""
    refetch_seconds: float = 10.0
    """The least time between two attempts, however many tokens name keys that are not known."""
    timeout_seconds: float = 5.0

    @property
    def place(self) -> str:
        """The URL as logs and metrics may have it."""
        url = URL(self.url)
        return str(url.origin()) + url.raw_path


@dataclass(frozen=True, slots=True)
class _Key:
    key: PublicKey
    id: str
    algorithms: tuple[str, ...]


class _KeySet:
    """The keys of one URL as they were last, and the fetch that is under way."""

    def __init__(self) -> None:
        self.keys: tuple[_Key, ...] = ()
        self.fetched_at = 0.0
        self.tried_at = float("-inf")
        self.failed = False
        """Whether the last attempt failed."""
        self.fetches = Counter({"done": 0, "failed": 0})
        self.fetching: asyncio.Task[None] | None = None

    def find(self, algorithm: str, id: str) -> PublicKey | None:
        """Gives the key with this ID; without one, the only key that fits the algorithm."""
        fitting = [each.key for each in self.keys if algorithm in each.algorithms and (not id or each.id == id)]
        return fitting[0] if len(fitting) == 1 else None


class KeySets(Collector):
    """Keys by URL, which outlive the routes that name it. Times are those of the monotonic clock."""

    def __init__(self) -> None:
        self._sets: dict[str, _KeySet] = {}
        self._session: aiohttp.ClientSession | None = None
        self._sources: Callable[[], Iterable[KeySource]] = tuple

    def __repr__(self) -> str:
        return f"<KeySets urls={len(self._sets)}>"

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), headers={"User-Agent": "gateway"})
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        fetches = [each.fetching for each in self._sets.values() if each.fetching is not None]
        for fetch in fetches:
            fetch.cancel()
        await asyncio.gather(*fetches, return_exceptions=True)
        assert self._session is not None
        await self._session.close()

    def fetch(self, sources: Iterable[KeySource]) -> None:
        """Begins to fetch what is not there yet."""
        for source in sources:
            keys = self._sets.setdefault(source.url, _KeySet())
            if not keys.fetched_at:
                self._begin(keys, source)

    def watch(self, sources: Callable[[], Iterable[KeySource]]) -> None:
        """Lets `sources` say what the figures are to be of: of a URL that no route names any more nobody wants to know."""
        self._sources = sources

    def collect(self) -> Iterator[Metric]:
        """Gives the figures for Prometheus. URLs that differ only in the query, which is no label, make one; its worst stands for all."""
        fetches = CounterMetricFamily("gateway_key_set_fetches_total", "Fetches of an issuer's keys.", labels=["url", "result"])
        age = GaugeMetricFamily("gateway_key_set_age_seconds", "How old the keys in use are.", labels=["url"])
        count = GaugeMetricFamily("gateway_key_set_keys", "Keys in use.", labels=["url"])
        for place, sets in self._find_watched().items():
            for result in ("done", "failed"):
                fetches.add_metric([place, result], sum(each.fetches[result] for each in sets))
            if all(each.fetched_at for each in sets):
                age.add_metric([place], time.monotonic() - min(each.fetched_at for each in sets))
            count.add_metric([place], min(len(each.keys) for each in sets))
        yield from (fetches, age, count)

    def _find_watched(self) -> dict[str, list[_KeySet]]:
        sources = {source.url: source.place for source in self._sources()}
        found = defaultdict(list)
        for url, place in sources.items():
            if url in self._sets:
                found[place].append(self._sets[url])
        return found

    async def find(self, source: KeySource, algorithm: str, id: str) -> PublicKey | None:
        """Gives the key that a token names, None when there is none. Raises KeysUnavailable.

        Waits for a fetch only when the keys are too old, unless the last attempt to replace them failed, or when this one is not among
        them, which makes no more than one attempt in `refetch_seconds`.
        """
        keys = self._sets.setdefault(source.url, _KeySet())
        age = time.monotonic() - keys.fetched_at if keys.fetched_at else float("inf")
        if age > source.max_age_seconds:
            fetching = self._begin(keys, source)
            if fetching is not None and (age > source.keep_seconds or not keys.failed):
                await asyncio.shield(fetching)
        self._drop_if_too_old(keys, source)
        key = keys.find(algorithm, id)
        if key is None and (fetching := self._begin(keys, source)) is not None:
            await asyncio.shield(fetching)
            key = keys.find(algorithm, id)
        if not keys.keys:
            raise KeysUnavailable(keys.tried_at + source.refetch_seconds - time.monotonic())
        return key

    def _drop_if_too_old(self, keys: _KeySet, source: KeySource) -> None:
        if keys.fetched_at and time.monotonic() - keys.fetched_at > max(source.keep_seconds, source.max_age_seconds):
            keys.keys, keys.fetched_at = (), 0.0
            log.error("keys are too old to be used", url=source.place, seconds=source.keep_seconds)

    def _begin(self, keys: _KeySet, source: KeySource) -> "asyncio.Task[None] | None":
        """Gives the fetch that is under way, after it has begun one unless the last is too recent."""
        if keys.fetching is None and time.monotonic() - keys.tried_at >= source.refetch_seconds:
            keys.tried_at = time.monotonic()
            keys.fetching = asyncio.create_task(self._fetch(keys, source))
        return keys.fetching

    async def _fetch(self, keys: _KeySet, source: KeySource) -> None:
        assert self._session is not None
        try:
            timeout = aiohttp.ClientTimeout(total=source.timeout_seconds)
            async with self._session.get(URL(source.url, encoded=True), allow_redirects=False, timeout=timeout) as answer:
                if answer.status != 200:
                    raise _Unusable(f"the answer is {answer.status}")
                body = await _read(answer)
            keys.keys = _parse(body)
            keys.fetched_at = time.monotonic()
            keys.failed = False
            keys.fetches["done"] += 1
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            keys.failed = True
            keys.fetches["failed"] += 1
            reason = str(error) if isinstance(error, _Unusable) else type(error).__name__  # a library's message may have the whole URL
            log.warning("no keys", url=source.place, reason=reason, kept=len(keys.keys))
        finally:
            keys.fetching = None


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > _MOST_BYTES:
            raise _Unusable(f"the answer has more than {_MOST_BYTES} bytes")
    return bytes(body)


def _parse(body: bytes) -> tuple[_Key, ...]:
    """Gives the keys of a set that signatures can be checked with. Raises _Unusable when there are none."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise _Unusable("the answer is not JSON") from None
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise _Unusable('the answer has no array "keys"')
    found = [key for entry in entries[:_MOST_KEYS] if isinstance(entry, dict) and (key := _parse_key(entry)) is not None]
    if not found:
        raise _Unusable("the answer has no key that a signature can be checked with")
    return tuple(found)


def _parse_key(entry: dict[str, Any]) -> _Key | None:
    """Gives a public key for signatures; None for what is something else, such as a secret, which is no secret in such a place."""
    operations = entry.get("key_ops", ["verify"])
    checks = entry.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations
    if not checks or entry.get("kty") not in ("RSA", "EC", "OKP"):
        return None
    public = {name: value for name, value in entry.items() if name not in ("d", "p", "q", "dp", "dq", "qi", "oth", "alg")}
    try:
        key = jwt.PyJWK(public).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    if not isinstance(key, PublicKey):
        return None
    algorithms = algorithms_of(key)
    if entry.get("alg") is not None:
        algorithms = tuple(name for name in algorithms if name == entry["alg"])
    id = entry.get("kid", "")
    return _Key(key, id, algorithms) if algorithms and isinstance(id, str) else None
