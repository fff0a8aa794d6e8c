"""Test key sets: fetched on demand, rate-limited, and kept while their URL is down."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, Protocol

import pytest
import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.samples import Sample

from gateway.access import key_sets
from gateway.access.key_sets import KeySets, KeysUnavailable
from tests.auth.issuer import Issuer, KeyUrl
from tests.auth.signing import private_key, public_jwk
from tests.kit.stack import refusing


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with Issuer() as issuer:
        yield issuer


@pytest.fixture
async def url(issuer: Issuer) -> KeyUrl:
    return issuer.key_url("keys")


@pytest.fixture
async def sets() -> AsyncIterator[KeySets]:
    async with KeySets() as sets:
        yield sets


class SetTimes(Protocol):
    def __call__(self, **seconds: float) -> None: ...


@pytest.fixture(autouse=True)
def set_times(monkeypatch: pytest.MonkeyPatch) -> SetTimes:
    """Return a function that changes times, such as `refetch` for `REFETCH_SECONDS`, which is 0.05 here."""

    def set_times(**seconds: float) -> None:
        for name, value in seconds.items():
            monkeypatch.setattr(key_sets, f"{name.upper()}_SECONDS", value)

    set_times(refetch=0.05)
    return set_times


@pytest.fixture
def logged() -> Any:
    with structlog.testing.capture_logs() as lines:
        yield lines


async def refetchable() -> None:
    """Wait until another fetch is allowed."""
    await asyncio.sleep(key_sets.REFETCH_SECONDS)


async def unavailable(sets: KeySets, url: KeyUrl) -> bool:
    try:
        return await sets.find(url.url, "ES256", "a") is None
    except KeysUnavailable:
        return True


async def test_key_is_found_by_its_id_and_fetched_once_for_all_waiting_requests(sets: KeySets, url: KeyUrl) -> None:
    url.publish("old", "new")
    url.speaking.clear()
    finding = [asyncio.create_task(sets.find(url.url, "ES256", name)) for name in ("old", "new") * 20]
    await url.until_asked(1)
    url.speaking.set()
    found = await asyncio.gather(*finding)
    assert found[:2] == [private_key("ES256", name).public_key() for name in ("old", "new")]
    assert None not in found
    assert url.asked == 1


async def test_cancelled_request_leaves_the_fetch_to_the_other_requests(sets: KeySets, url: KeyUrl) -> None:
    url.publish("a")
    url.speaking.clear()
    first, second = (asyncio.create_task(sets.find(url.url, "ES256", "a")) for _ in range(2))
    await url.until_asked(1)
    first.cancel()
    url.speaking.set()
    assert await second is not None
    assert url.asked == 1


async def test_new_key_is_fetched_and_a_withdrawn_one_expires_with_the_set(sets: KeySets, url: KeyUrl, set_times: SetTimes) -> None:
    set_times(max_age=0.2)
    url.publish("old")
    assert await sets.find(url.url, "ES256", "old") is not None
    url.publish("new")
    await refetchable()
    assert await sets.find(url.url, "ES256", "new") is not None
    assert await sets.find(url.url, "ES256", "old") is None
    url.publish("newest")
    async with asyncio.timeout(30):
        while await sets.find(url.url, "ES256", "new") is not None:
            await asyncio.sleep(0.02)


async def test_unknown_keys_cause_at_most_one_fetch_per_interval(sets: KeySets, url: KeyUrl, set_times: SetTimes) -> None:
    set_times(refetch=60)
    url.publish("a")
    sets.fetch([url.url])
    assert await sets.find(url.url, "ES256", "a") is not None
    for number in range(50):
        assert await sets.find(url.url, "ES256", f"made-up-{number}") is None
    assert url.asked == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b""),
        (404, b'{"keys": []}'),
        (301, b""),
        (200, b""),
        (200, b"<html>"),
        (200, b"[]"),
        (200, b"{}"),
        (200, b'{"keys": {}}'),
        (200, b'{"keys": []}'),
        (200, b'{"keys": [null, 1, "x", {}, {"kty": "RSA"}, {"kty": "EC", "crv": "P-256", "x": "?", "y": 1}]}'),
        (200, b"[" * 100_000),
        (200, b" " * (2**20 + 1)),
        (200, b"\xff\xfe"),
    ],
)
async def test_answer_without_keys_changes_nothing_and_is_logged(
    sets: KeySets, url: KeyUrl, set_times: SetTimes, logged: list[dict[str, Any]], status: int, body: bytes
) -> None:
    url.publish("a")
    set_times(max_age=0.01)
    assert await sets.find(url.url, "ES256", "a") is not None
    url.status, url.body = status, body
    await refetchable()
    assert await sets.find(url.url, "ES256", "a") is not None
    assert url.asked == 2
    (line,) = logged
    assert line["event"] == "cannot fetch an issuer's keys"
    assert line["kept"] == 1
    assert line["reason"].startswith("the answer ")


async def test_keys_stay_valid_while_the_url_is_down_until_keep_seconds(sets: KeySets, url: KeyUrl, set_times: SetTimes) -> None:
    set_times(max_age=0.01, keep=1.5)
    url.publish("a")
    assert await sets.find(url.url, "ES256", "a") is not None
    url.status = 503
    await refetchable()
    assert await sets.find(url.url, "ES256", "a") is not None
    async with asyncio.timeout(30):
        while not await unavailable(sets, url):
            await asyncio.sleep(0.02)
    url.status = 200
    await refetchable()
    assert await sets.find(url.url, "ES256", "a") is not None


async def test_request_does_not_wait_for_a_failed_url_while_there_are_keys(sets: KeySets, url: KeyUrl, set_times: SetTimes) -> None:
    set_times(max_age=0.01)
    url.publish("a")
    assert await sets.find(url.url, "ES256", "a") is not None
    await refetchable()
    url.speaking.clear()
    set_times(timeout=0.1)
    assert await sets.find(url.url, "ES256", "a") is not None  # after the time-out
    await refetchable()
    asked = url.asked
    set_times(timeout=60)
    async with asyncio.timeout(30):
        assert await sets.find(url.url, "ES256", "a") is not None
    await url.until_asked(asked + 1)


async def test_request_without_any_keys_fails_at_once_after_a_failed_fetch(sets: KeySets, url: KeyUrl, set_times: SetTimes) -> None:
    set_times(refetch=60)
    url.status = 500
    for _ in range(3):
        with pytest.raises(KeysUnavailable):
            await sets.find(url.url, "ES256", "a")
    assert url.asked == 1


async def test_url_that_refuses_connections_is_logged(sets: KeySets, logged: list[dict[str, Any]]) -> None:
    with refusing() as url, pytest.raises(KeysUnavailable):
        await sets.find(f"{url}/keys?tenant=s3cret", "ES256", "a")
    (line,) = logged
    assert line["url"] == f"{url}/keys"
    assert "s3cret" not in json.dumps(line)


async def test_redirect_of_a_key_url_is_not_followed(sets: KeySets, issuer: Issuer, url: KeyUrl) -> None:
    other = issuer.key_url("other")
    other.publish("a")
    url.status, url.location = 302, other.url
    with pytest.raises(KeysUnavailable):
        await sets.find(url.url, "ES256", "a")
    assert other.asked == 0


async def test_keys_outlive_routes_and_their_settings(sets: KeySets, url: KeyUrl) -> None:
    url.publish("a")
    sets.fetch([url.url])
    await url.until_asked(1)
    assert await sets.find(url.url, "ES256", "a") is not None
    sets.fetch([url.url])
    assert url.asked == 1


@pytest.mark.parametrize(
    ("algorithm", "asked", "change", "found"),
    [
        ("RS256", "RS256", {}, True),
        ("RS256", "PS512", {"alg": None}, True),
        ("RS256", "PS256", {"alg": "RS256"}, False),
        ("RS256", "HS256", {}, False),
        ("RS256", "HS256", {"alg": "HS256"}, False),
        ("ES256", "ES256", {}, True),
        ("ES256", "ES384", {}, False),
        ("ES384", "ES384", {}, True),
        ("EdDSA", "EdDSA", {}, True),
        ("ES256", "ES256", {"use": "enc"}, False),
        ("ES256", "ES256", {"key_ops": ["verify"]}, True),
        ("ES256", "ES256", {"key_ops": ["encrypt"]}, False),
        ("ES256", "ES256", {"key_ops": 5}, False),
        ("ES256", "ES256", {"kid": 7}, False),
    ],
)
async def test_key_is_found_only_for_its_algorithm_and_use(
    sets: KeySets, url: KeyUrl, algorithm: str, asked: str, change: dict[str, Any], found: bool
) -> None:
    url.publish_keys([public_jwk(algorithm, "a", **change), public_jwk("EdDSA", "b")])
    assert (await sets.find(url.url, asked, "a") is not None) is found


async def test_symmetric_key_in_a_set_is_ignored(sets: KeySets, url: KeyUrl) -> None:
    url.publish_keys([{"kty": "oct", "kid": "a", "k": "c2VjcmV0LXRoYXQtaXMtbm8tc2VjcmV0LWhlcmU"}, public_jwk("ES256", "b")])
    assert await sets.find(url.url, "HS256", "a") is None


async def test_token_without_key_id_is_verified_with_the_only_key_that_fits(sets: KeySets, url: KeyUrl) -> None:
    url.publish_keys([public_jwk("ES256", "a"), public_jwk("EdDSA", "b"), public_jwk("EdDSA", "c")])
    assert await sets.find(url.url, "ES256", "") is not None
    assert await sets.find(url.url, "EdDSA", "") is None


async def test_metrics_count_fetches_by_result_and_give_the_age_of_keys(sets: KeySets, url: KeyUrl, set_times: SetTimes) -> None:
    figures = CollectorRegistry()
    figures.register(sets)
    named = [url.url]
    sets.watch(lambda: named)
    assert list(_samples(figures)) == [], "no fetch yet"
    set_times(max_age=0.01)
    url.status = 500
    with pytest.raises(KeysUnavailable):
        await sets.find(url.url, "ES256", "a")
    done, failed, keys = ({"url": url.url, "result": "done"}, {"url": url.url, "result": "failed"}, {"url": url.url})
    assert figures.get_sample_value("gateway_key_set_fetches_total", failed) == 1
    assert figures.get_sample_value("gateway_key_set_keys", keys) == 0
    assert figures.get_sample_value("gateway_key_set_age_seconds", keys) is None
    url.publish("a", "b")
    await refetchable()
    assert await sets.find(url.url, "ES256", "a") is not None
    url.status = 503
    await refetchable()
    assert await sets.find(url.url, "ES256", "a") is not None
    assert [figures.get_sample_value("gateway_key_set_fetches_total", labels) for labels in (done, failed)] == [1, 2]
    assert figures.get_sample_value("gateway_key_set_keys", keys) == 2
    age = figures.get_sample_value("gateway_key_set_age_seconds", keys)
    assert age is not None
    assert key_sets.REFETCH_SECONDS <= age < 5
    named.clear()
    assert list(_samples(figures)) == [], "no route names the URL any more"


async def test_urls_that_differ_only_in_the_query_share_one_series(sets: KeySets, issuer: Issuer, url: KeyUrl) -> None:
    """Two series with the same labels would make Prometheus reject all metrics."""
    url.publish("a")
    urls = [f"{url.url}?tenant={name}" for name in ("s3cret", "other")]
    sets.watch(lambda: urls)
    figures = CollectorRegistry()
    figures.register(sets)
    sets.fetch(urls)
    for each in urls:
        assert await sets.find(each, "ES256", "a") is not None
    shown = list(_samples(figures))
    assert len({(sample.name, *sample.labels.items()) for sample in shown}) == len(shown) == 4
    assert figures.get_sample_value("gateway_key_set_fetches_total", {"url": url.url, "result": "done"}) == 2
    assert "s3cret" not in str(shown)


def _samples(figures: CollectorRegistry) -> Iterator[Sample]:
    return (sample for family in figures.collect() for sample in family.samples)


async def test_fetches_are_cancelled_when_the_gateway_stops(url: KeyUrl) -> None:
    url.speaking.clear()
    async with KeySets() as sets:
        sets.fetch([url.url])
        await url.until_asked(1)
    url.speaking.set()
