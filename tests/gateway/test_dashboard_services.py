"""The services that the dashboard shows: how they are named, asked and judged."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from gateway.observe.dashboard.services import FIGURES, Services
from gateway.policy.services import parse_services
from gateway.policy.settings import Settings
from tests.kit.documentation import DOCUMENTATION
from tests.kit.stack import refusing
from tests.kit.upstream import Asked, Script, ScriptedUpstream, Silence
from tests.kit.waiting import GUARD_SECONDS

METRICS = b"""# TYPE producer_streams_open gauge
producer_streams_open{route="/"} 2
producer_streams_open{route="/sse"} 3
# TYPE producer_log_events gauge
producer_log_events 7
# TYPE producer_log_bytes gauge
producer_log_bytes 2048
# TYPE process_resident_memory_bytes gauge
process_resident_memory_bytes 1
"""


def answer(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d Said\r\nContent-Length: %d\r\nContent-Type: text/plain\r\n\r\n%b" % (status, len(body), body)


def service(ready: tuple[int, bytes] = (200, b"{}"), metrics: bytes = METRICS) -> ScriptedUpstream:
    def script(asked: Asked) -> Script:
        return [answer(*ready) if asked.target.endswith("/readyz") else answer(200, metrics)]

    return ScriptedUpstream(script)


async def states(*urls: str) -> Sequence[dict[str, Any]]:
    """Return the data of services at these addresses, once each has been polled."""
    services = Services({f"service-{number}": url for number, url in enumerate(urls)})
    watching = asyncio.create_task(services.watch())
    try:
        async with asyncio.timeout(GUARD_SECONDS):
            while any(state["state"] == "unknown" for state in services.states):
                await asyncio.sleep(0.01)
    finally:
        watching.cancel()
        await asyncio.wait((watching,))
    return services.states


async def test_service_that_is_ready_is_shown_with_its_figures() -> None:
    async with service() as upstream:
        [state] = await states(upstream.url)
    assert state == {
        "name": "service-0",
        "state": "ready",
        "reason": "",
        "figures": [
            {"label": "streams", "value": 5.0, "unit": ""},
            {"label": "events", "value": 7.0, "unit": ""},
            {"label": "log", "value": 2048.0, "unit": "bytes"},
        ],
    }


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"status": "not ready", "reason": "the disk is full"}', "the disk is full"),
        (b'{"detail":"starting"}', "starting"),
        (b"<html>", "/readyz answers 503"),
    ],
)
async def test_service_that_is_not_ready_says_why(body: bytes, reason: str) -> None:
    async with service((503, body)) as upstream:
        [state] = await states(upstream.url + "/prefix")
    assert (state["state"], state["reason"]) == ("not ready", reason)
    assert [asked.target for asked in upstream.requests] == ["/prefix/readyz", "/prefix/metrics"]


async def test_services_that_do_not_answer_make_no_other_wait() -> None:
    with refusing() as gone:
        async with ScriptedUpstream([Silence()]) as silent, service() as well:
            told = await states(silent.url, gone, well.url)
    assert [(state["state"], state["reason"]) for state in told] == [
        ("gone", "no answer within 1.5 s"),
        ("gone", "does not answer: Connection refused"),
        ("ready", ""),
    ]


@pytest.mark.parametrize(
    "metrics", [b"", b"<html>", b'x{y="', b"\xff\xfe", b"a b c d\n", b"# TYPE a b\n" * 10, b"producer_log_events NaN\n"]
)
async def test_service_whose_metrics_make_no_sense_is_still_ready(metrics: bytes) -> None:
    async with service(metrics=metrics) as upstream:
        [state] = await states(upstream.url)
    assert state["state"] == "ready"
    json.dumps(state, allow_nan=False)


def test_setting_names_services_and_their_addresses() -> None:
    assert parse_services("") == {}
    assert parse_services("producer=http://producer:8000, consumer=https://host/prefix/") == {
        "producer": "http://producer:8000",
        "consumer": "https://host/prefix",
    }


@pytest.mark.parametrize(
    "text", ["producer", "=http://host", "Producer=http://host", "a=ftp://host", "a=http://host?key=1", "a=http://", "a=http://b=c d"]
)
def test_invalid_setting_is_refused_with_the_allowed_values(text: str) -> None:
    with pytest.raises(ValueError, match="must be a comma-separated list of name=URL"):
        Settings(services=text)


def test_refused_setting_keeps_credentials_to_itself() -> None:
    with pytest.raises(ValueError) as refused:
        parse_services("a=http://user:secret@host")
    assert "secret" not in str(refused.value)


def test_service_is_named_once() -> None:
    with pytest.raises(ValueError, match="service names must be unique, got 'a' twice"):
        parse_services("a=http://b,a=http://c")


def test_figures_are_metrics_that_the_services_have() -> None:
    own = [figure.metric.removesuffix("_total") for figure in FIGURES if not figure.metric.startswith("process_")]
    assert [name for name in own if name not in DOCUMENTATION] == []
