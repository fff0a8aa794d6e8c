"""Test the doctor behind real proxies: it must find what they change, and accuse none that changes nothing.

One fixture listens to all paths at once, because listening takes seconds.
"""

import asyncio
import contextlib
import re
import shutil
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from yarl import URL

from gateway.doctor.command import judge
from gateway.doctor.examining import examine
from gateway.doctor.findings import Finding
from gateway.doctor.listening import Request
from gateway.doctor.quoting import Quote
from gateway.doctor.report import Report, Section
from tests.doctor.proxies import PROGRAMS, naive
from tests.doctor.source import Source
from tests.doctor.traces import by_check
from tests.kit.gateway import serving

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

SECONDS = 4.0
MOST_EXAMINATIONS = 10
LIVE = {
    "nginx as it is": ("nginx", "/default/live"),
    "nginx unbuffered": ("nginx", "/unbuffered/live"),
    "nginx with gzip": ("nginx", "/gzip/live"),
    "HAProxy": ("haproxy", "/live"),
    "HAProxy without delay": ("haproxy without delay", "/live"),
    "Caddy": ("caddy", "/live"),
    "naive proxy": ("naive", "/crlf"),
    "gateway, direct": ("gateway", "/direct/live"),
    "gateway, shared": ("gateway", "/shared/live"),
    "HAProxy, silent source": ("haproxy", "/quiet"),
    "HAProxy, heartbeats": ("haproxy", "/beating"),
}
"""The proxy of each case, and the path of the source's stream through it."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def reports(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, Report]]:
    """Yield the reports of all cases whose proxy is installed. The case of the last event ID has one path only."""
    async with contextlib.AsyncExitStack() as stack:
        source = await stack.enter_async_context(Source())
        urls = {"naive": await stack.enter_async_context(naive(source.url))}
        for name, (needed, proxy) in PROGRAMS.items():
            if shutil.which(needed):
                urls[name] = await stack.enter_async_context(proxy(source.url, tmp_path_factory.mktemp(needed)))
        routes = [{"path": f"/{mode}/", "upstream": f"{source.url}/", "mode": mode} for mode in ("direct", "shared")]
        port = await stack.enter_async_context(serving(routes, tmp_path_factory.mktemp("gateway")))
        urls["gateway"] = f"http://127.0.0.1:{port}"
        pairs = {name: [source.url + path, urls[proxy] + path] for name, (proxy, path) in LIVE.items() if proxy in urls}
        pairs["source that ignores the last event ID"] = [source.url + "/ignoring"]
        found = await asyncio.gather(*(_report(*each) for each in pairs.values()))
        yield dict(zip(pairs, found, strict=True))


async def _report(*urls: str) -> Report:
    """Examine anew while even the path without a proxy looks uneven: then this machine was too busy to judge the other one."""
    requests = [Request(URL(url)).with_field("Accept", "text/event-stream") for url in urls]
    for _ in range(MOST_EXAMINATIONS):
        examinations = await examine(requests, SECONDS, once=False, enough=asyncio.Event(), watchers=[None] * len(urls))
        report = judge(examinations, Quote())
        if by_check(report.direct.findings)["rhythm"].severity not in ("warning", "problem"):
            break
    return report


def found(report: Report) -> dict[str, Finding]:
    """Return the findings on the path through the proxy, with the comparison."""
    assert isinstance(report.through, Section)
    assert report.comparison is not None
    return by_check((*report.through.findings, *report.comparison.findings))


def complaints(report: Report) -> dict[str, str]:
    """Return the severities other than `ok`, by check, without checks that a busy machine falsifies."""
    return {
        check: finding.severity
        for check, finding in found(report).items()
        if finding.severity != "ok" and check not in ("first byte", "delay")
    }


@pytest.mark.nginx
async def test_nginx_buffers_by_default(reports: dict[str, Report]) -> None:
    report = reports["nginx as it is"]
    findings = found(report)
    assert findings["rhythm"].severity == findings["buffering"].severity == "problem"
    assert "4096 bytes (a buffer of 4096?)" in findings["rhythm"].seen
    assert "nginx (Server: nginx/" in findings["rhythm"].do
    assert "proxy_buffering off" in findings["buffering"].do
    assert findings["bytes"].severity == "ok"
    assert findings["delay"].seen > "1"
    assert not report.healthy
    assert "rhythm" not in {finding.check for finding in report.direct.findings if finding.severity != "ok"}


@pytest.mark.nginx
async def test_nginx_with_buffering_off_is_healthy(reports: dict[str, Report]) -> None:
    assert complaints(reports["nginx unbuffered"]) == {}


@pytest.mark.nginx
async def test_nginx_with_gzip_streams_only_to_clients_that_do_not_offer_it(reports: dict[str, Report]) -> None:
    assert complaints(reports["nginx with gzip"]) == {"compression offered": "problem"}


@pytest.mark.haproxy
async def test_haproxy_delays_events_without_option_http_no_delay(reports: dict[str, Report]) -> None:
    assert complaints(reports["HAProxy"]) == {"rhythm": "warning", "buffering": "warning"}
    assert "option http-no-delay" in found(reports["HAProxy"])["buffering"].do
    assert complaints(reports["HAProxy without delay"]) == {}


@pytest.mark.haproxy
async def test_haproxy_cuts_a_silent_stream_and_keeps_one_with_heartbeats(reports: dict[str, Report]) -> None:
    cut = found(reports["HAProxy, silent source"])
    assert cut["end"].severity == cut["ends"].severity == "problem"
    assert "without the last chunk" in cut["end"].seen
    beating = found(reports["HAProxy, heartbeats"])
    assert beating["end"].severity == "ok"
    apart = re.search(r"([0-9.]+) s apart: comment line :; longest silence", beating["heartbeat"].seen)
    assert apart, beating["heartbeat"]
    assert float(apart[1]) >= 0.3  # the source's interval; more on a busy machine


@pytest.mark.caddy
async def test_caddy_flushes_compressed_events(reports: dict[str, Report]) -> None:
    assert complaints(reports["Caddy"]) == {"compression offered": "note"}
    assert found(reports["Caddy"])["compression offered"].seen.startswith("gzip, to ")
    assert "via: nothing became 1.1 Caddy" in found(reports["Caddy"])["header through"].seen


async def test_naive_proxy_breaks_lines_and_drops_the_last_event_id(reports: dict[str, Report]) -> None:
    report = reports["naive proxy"]
    findings = found(report)
    assert {check for check, severity in complaints(report).items() if severity == "problem"} == {"resuming", "bytes"}
    assert "skips" in findings["resuming"].seen
    assert findings["fields"].severity == "warning"
    assert re.fullmatch(r".* 0 of them unchanged.*; [0-9]+ altered", findings["bytes"].seen)
    assert report.comparison is not None
    alteration = report.comparison.alterations[1]
    assert "without data: event\\u2028number" in alteration.what
    assert alteration.difference is not None
    assert "0d 0a" in alteration.difference.direct_hex
    assert "0d 0a" not in alteration.difference.through_hex


async def test_gateway_changes_no_byte_and_is_healthy(reports: dict[str, Report]) -> None:
    for mode in ("direct", "shared"):
        report = reports[f"gateway, {mode}"]
        assert complaints(report) == {}
        assert [alteration.what for alteration in report.comparison.alterations] == ["head"]  # type: ignore[union-attr]


async def test_doctor_finds_a_source_that_ignores_the_last_event_id(reports: dict[str, Report]) -> None:
    report = reports["source that ignores the last event ID"]
    finding = by_check(report.findings)["resuming"]
    assert finding.severity == "problem"
    assert "ignored: starts again at the first event" in finding.seen
