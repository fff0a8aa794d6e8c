"""Fetch and cache the public keys of token issuers from their JWKS URLs (RFC 7517)."""

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

from ..policy.tokens import PublicKey, algorithms_of

log = structlog.get_logger()

MAX_AGE_SECONDS = 600.0
"""Age after which keys are fetched again before use. A key that the issuer withdraws stays valid for up to this time."""
KEEP_SECONDS = 86_400.0
"""Greatest age of keys while fetches fail."""
REFETCH_SECONDS = 10.0
"""Least time between two fetches of a URL, however many tokens name unknown keys."""
TIMEOUT_SECONDS = 5.0
"""Time limit of a fetch."""
_MOST_BYTES = 2**20
_MOST_KEYS = 100


class KeysUnavailable(Exception):
    """No keys to verify a token: no fetch succeeded, or the last keys are too old. A retry makes sense after `retry_after_seconds`."""

    def __init__(self, retry_after_seconds: float) -> None:
        super().__init__(retry_after_seconds)
        self.retry_after_seconds = max(0.0, retry_after_seconds)


class _Unusable(ValueError):
    """A URL's answer is not a usable key set. The message gives the reason."""


def place_of(url: str) -> str:
    """Return a URL for logs and metrics, without its query."""
    parts = URL(url)
    return str(parts.origin()) + parts.raw_path


@dataclass(frozen=True, slots=True)
class _Key:
    key: PublicKey
    id: str
    algorithms: tuple[str, ...]


class _KeySet:
    """The latest keys of one URL, and the current fetch."""

    def __init__(self, url: str) -> None:
        self.url = URL(url, encoded=True)
        self.place = place_of(url)
        self.keys: tuple[_Key, ...] = ()
        self.fetched_at = 0.0
        self.tried_at = float("-inf")
        self.failed = False
        """Whether the last fetch failed."""
        self.fetches = Counter({"done": 0, "failed": 0})
        self.fetching: asyncio.Task[None] | None = None

    def find(self, algorithm: str, id: str) -> PublicKey | None:
        """Return the key with this ID, or without an ID the only key that fits the algorithm. None if there is no such key."""
        fitting = [each.key for each in self.keys if algorithm in each.algorithms and (not id or each.id == id)]
        return fitting[0] if len(fitting) == 1 else None


class KeySets(Collector):
    """Keys by URL. They outlive the routes that name the URL. Times are on the monotonic clock."""

    def __init__(self) -> None:
        self._sets: dict[str, _KeySet] = {}
        self._session: aiohttp.ClientSession | None = None
        self._watched: Callable[[], Iterable[str]] = tuple

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

    def fetch(self, urls: Iterable[str]) -> None:
        """Start to fetch the keys that have not been fetched yet."""
        for url in urls:
            keys = self._sets.setdefault(url, _KeySet(url))
            if not keys.fetched_at:
                self._begin(keys)

    def watch(self, urls: Callable[[], Iterable[str]]) -> None:
        """Limit the metrics to the URLs that routes currently name."""
        self._watched = urls

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics for Prometheus. URLs that differ only in the query share one label, with the worst of their values."""
        fetches = CounterMetricFamily("gateway_key_set_fetches_total", "Fetches of an issuer's keys, by result.", labels=["url", "result"])
        age = GaugeMetricFamily("gateway_key_set_age_seconds", "Age of the keys in use.", labels=["url"])
        count = GaugeMetricFamily("gateway_key_set_keys", "Keys in use.", labels=["url"])
        for place, sets in self._find_watched().items():
            for result in ("done", "failed"):
                fetches.add_metric([place, result], sum(each.fetches[result] for each in sets))
            if all(each.fetched_at for each in sets):
                age.add_metric([place], time.monotonic() - min(each.fetched_at for each in sets))
            count.add_metric([place], min(len(each.keys) for each in sets))
        yield from (fetches, age, count)

    def _find_watched(self) -> dict[str, list[_KeySet]]:
        found = defaultdict(list)
        for url in dict.fromkeys(self._watched()):
            if (keys := self._sets.get(url)) is not None:
                found[keys.place].append(keys)
        return found

    async def find(self, url: str, algorithm: str, id: str) -> PublicKey | None:
        """Return the key that a token names, None if there is none. Raises KeysUnavailable if there are no usable keys.

        Waits for a fetch only if the keys are too old, unless the last fetch failed, or if the key is unknown. Fetches are at least
        `REFETCH_SECONDS` apart.
        """
        keys = self._sets.setdefault(url, _KeySet(url))
        age = time.monotonic() - keys.fetched_at if keys.fetched_at else float("inf")
        if age > MAX_AGE_SECONDS:
            fetching = self._begin(keys)
            if fetching is not None and (age > KEEP_SECONDS or not keys.failed):
                await asyncio.shield(fetching)
        self._drop_if_too_old(keys)
        key = keys.find(algorithm, id)
        if key is None and (fetching := self._begin(keys)) is not None:
            await asyncio.shield(fetching)
            key = keys.find(algorithm, id)
        if not keys.keys:
            raise KeysUnavailable(keys.tried_at + REFETCH_SECONDS - time.monotonic())
        return key

    def _drop_if_too_old(self, keys: _KeySet) -> None:
        if keys.fetched_at and time.monotonic() - keys.fetched_at > KEEP_SECONDS:
            keys.keys, keys.fetched_at = (), 0.0
            log.error("issuer's keys dropped: too old", url=keys.place, seconds=KEEP_SECONDS)

    def _begin(self, keys: _KeySet) -> "asyncio.Task[None] | None":
        """Return the current fetch, after starting one unless the last was too recent. None if there is none."""
        if keys.fetching is None and time.monotonic() - keys.tried_at >= REFETCH_SECONDS:
            keys.tried_at = time.monotonic()
            keys.fetching = asyncio.create_task(self._fetch(keys))
        return keys.fetching

    async def _fetch(self, keys: _KeySet) -> None:
        assert self._session is not None
        try:
            timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
            async with self._session.get(keys.url, allow_redirects=False, timeout=timeout) as answer:
                if answer.status != 200:
                    raise _Unusable(f"the answer has status {answer.status}")
                body = await _read(answer)
            keys.keys = _parse(body)
            keys.fetched_at = time.monotonic()
            keys.failed = False
            keys.fetches["done"] += 1
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            keys.failed = True
            keys.fetches["failed"] += 1
            reason = str(error) if isinstance(error, _Unusable) else type(error).__name__  # a library's message may contain the whole URL
            log.warning("cannot fetch an issuer's keys", url=keys.place, reason=reason, kept=len(keys.keys))
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
    """Return the keys of a set that can verify signatures. Raises _Unusable if there are none."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise _Unusable("the answer is not JSON") from None
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise _Unusable('the answer has no array "keys"')
    found = [key for entry in entries[:_MOST_KEYS] if isinstance(entry, dict) and (key := _parse_key(entry)) is not None]
    if not found:
        raise _Unusable("the answer has no key that can verify a signature")
    return tuple(found)


def _parse_key(entry: dict[str, Any]) -> _Key | None:
    """Return a public key for signatures, None for any other entry, such as a symmetric key, which must not be published."""
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
