"""Spans: when they are created, where they are sent, and what happens when the collector does not accept them."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import structlog

from eventstream import Reconnection
from service.traced_source import TracedSource
from service.tracing import Tracing, TracingError, open_tracing, tracing_or_exit
from tests.kit.gateway import serving
from tests.kit.gateway_process import start_gateway
from tests.kit.stack import REPOSITORY, free_ports
from tests.kit.upstream import EVENT_STREAM_HEAD, Disconnect, ScriptedUpstream, Silence, chunk
from tests.kit.waiting import GUARD_SECONDS
from tests.observability.collector import Collector, Told, collecting

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SENT = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "tracestate": "vendor=1,other=2"}
EVENT = b"id: 1\ndata: x\n\n"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_EXPORTER", "OTEL_SDK_DISABLED", "OTEL_TRACES_SAMPLER"):
        monkeypatch.delenv(name, raising=False)


@asynccontextmanager
async def tracing_to(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Tracing]:
    """Send all spans when the block ends."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    tracing = open_tracing("test")
    assert tracing is not None
    yield tracing
    await tracing.close(GUARD_SECONDS)


def test_tracing_imports_nothing_of_opentelemetry_unless_enabled() -> None:
    code = (
        "import sys; import gateway.__main__, gateway.server.workers.worker, consumer.__main__; from service.tracing import open_tracing;"
        "assert open_tracing('gateway') is None;"
        "print([name for name in sys.modules if name.startswith('opentelemetry')]);"
        "import producer.__main__;"  # FastAPI imports the interface
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n[]\n", "")


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_SERVICE_NAME": "x", "OTEL_TRACES_SAMPLER": "always_on"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_tracing_is_off_without_an_endpoint_or_when_the_sdk_is_disabled(environ: dict[str, str]) -> None:
    assert open_tracing("gateway", environ) is None


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "must be http/protobuf, got 'grpc'"),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "must be otlp or none, got 'zipkin'"),
    ],
)
def test_unsupported_exporter_or_protocol_stops_the_start_with_what_is_supported(
    environ: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(TracingError, match=said):
        open_tracing("gateway", environ)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as end:
        tracing_or_exit("gateway")
    assert end.value.code == 2
    assert said in capsys.readouterr().err


async def test_sampler_of_the_environment_decides_and_the_trace_still_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    with collecting() as collector:
        async with tracing_to(collector, monkeypatch) as tracing:
            span = tracing.serve("GET /", SENT, {})
            fields = span.fields()
            span.end({})
    assert collector.spans == []
    assert fields["traceparent"].startswith(f"00-{TRACE}-")
    assert fields["traceparent"].endswith("-00")
    assert fields["tracestate"] == SENT["tracestate"]


async def test_collector_that_is_down_delays_nothing_and_is_logged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    [port] = free_ports(1)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    with structlog.testing.capture_logs() as lines:
        tracing = open_tracing("gateway")
        assert tracing is not None
        async with asyncio.timeout(GUARD_SECONDS):
            while not lines:
                tracing.serve("GET /", {}, {}).end({})
                await asyncio.sleep(0.01)
        for _ in range(1000):
            tracing.serve("GET /", {}, {}).end({})
        began = time.monotonic()
        await tracing.close(60)
        assert time.monotonic() - began < GUARD_SECONDS
        async with asyncio.timeout(GUARD_SECONDS):
            while any(thread.name.startswith("OtelBatch") for thread in threading.enumerate()):  # it gives up for good
                await asyncio.sleep(0.01)
    assert [line["event"] for line in lines] == [
        "spans cannot be sent",
        "the last spans are lost: the collector does not accept them",
    ]


async def test_silent_collector_is_abandoned_after_the_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ScriptedUpstream(lambda _: [Silence()]) as silent:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", silent.url)
        tracing = open_tracing("gateway")
        assert tracing is not None
        tracing.serve("GET /", {}, {}).end({})
        began = time.monotonic()
        with structlog.testing.capture_logs() as lines:
            await tracing.close(0.2)
        assert 0.2 <= time.monotonic() - began < GUARD_SECONDS
        assert [line["event"] for line in lines] == ["the last spans are lost: the collector does not accept them"]


@pytest.mark.parametrize("mode", ["direct", "shared", "resumable"])
async def test_trace_context_passes_unchanged_without_spans(mode: str, tmp_path: Path) -> None:
    async with (
        ScriptedUpstream(lambda _: [EVENT_STREAM_HEAD, chunk(EVENT), Silence()]) as upstream,
        serving([{"path": "/", "upstream": upstream.url, "mode": mode, "methods": ["GET"]}], tmp_path) as port,
        httpx.AsyncClient(trust_env=False, timeout=GUARD_SECONDS) as http,
    ):
        async with http.stream("GET", f"http://127.0.0.1:{port}/", headers=SENT | {"X-Request-Id": "mine"}):
            await upstream.wait_for_requests(1)
        asked = upstream.requests[0]
        assert {name: asked.header(name) for name in SENT} == SENT
        id = asked.header("X-Request-Id") or ""
        assert len(id) == 32 if mode == "shared" else id == "mine"


async def test_each_attempt_of_an_event_source_is_a_span_and_later_ones_start_their_own_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = [
        [EVENT_STREAM_HEAD, chunk(EVENT), Disconnect()],
        [b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"],
        [EVENT_STREAM_HEAD, chunk(EVENT)],
    ]
    with collecting() as collector:
        async with ScriptedUpstream(lambda _: scripts.pop(0)) as upstream, tracing_to(collector, monkeypatch) as tracing:
            opener = tracing.serve("GET /", SENT, {})
            quick = Reconnection(initial_seconds=0, maximum_seconds=0)
            url = upstream.url.replace("://", "://user:hunter2@") + "/events?token=hunter2"
            ids = []
            async with (
                asyncio.timeout(GUARD_SECONDS),
                TracedSource(url, fields=lambda own: {**own, "X-Own": "1"}, tracing=tracing, opener=opener, reconnection=quick) as source,
            ):
                async for _ in source:
                    ids.append(source.request_id)
                    if len(ids) == 2:
                        break
            opener.end({})
        asked = [dict(request.headers) for request in upstream.requests]
    spans: list[Told] = [span for span in collector.spans if span.kind == "CLIENT"]
    first, refused, last = spans
    [opened] = [span for span in collector.spans if span.kind == "SERVER"]
    assert (first.parent, first.trace) == (opened.id, TRACE)
    assert [span.parent for span in (refused, last)] == ["", ""]
    assert [span.links for span in (refused, last)] == [(opened.id,)] * 2
    assert len({first.trace, refused.trace, last.trace}) == 3
    assert [headers["traceparent"].split("-")[1:3] for headers in asked] == [[span.trace, span.id] for span in spans]
    assert [span.attributes["eventstream.request_id"] for span in spans] == [headers["X-Request-Id"] for headers in asked]
    assert [span.attributes["eventstream.request_id"] for span in (first, last)] == ids
    assert [span.attributes["http.response.status_code"] for span in spans] == [200, 503, 200]
    assert [span.failed for span in spans] == [False, True, False]
    assert [span.attributes["eventstream.blocks"] for span in spans] == [1, 0, 1]
    assert {headers["X-Own"] for headers in asked} == {"1"}
    assert first.attributes["url.full"] == f"{upstream.url}/events"
    assert b"hunter2" not in b"".join(collector.bodies)


async def test_workers_send_spans_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        async with (
            ScriptedUpstream(lambda _: [EVENT_STREAM_HEAD, chunk(EVENT), Disconnect()]) as upstream,
            start_gateway(WORKERS="2", UPSTREAM=upstream.url) as gateway,
            httpx.AsyncClient(trust_env=False, timeout=GUARD_SECONDS) as http,
        ):
            with pytest.raises(httpx.RemoteProtocolError):
                await http.get(gateway.url, headers=SENT)
            gateway.terminate()
            assert await gateway.exit_status() == 0
    [served] = [span for span in collector.spans if span.kind == "SERVER"]
    assert (served.service, served.trace, served.failed) == ("gateway", TRACE, True)
    assert (served.attributes["eventstream.verdict"], served.attributes["eventstream.blocks"]) == ("cut", 1)


async def test_span_has_no_status_when_the_client_left_before_the_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with collecting() as collector:
        async with (
            tracing_to(collector, monkeypatch) as tracing,
            ScriptedUpstream(lambda _: [Silence()]) as upstream,
            serving([{"path": "/", "upstream": upstream.url}], tmp_path, tracing=tracing) as port,
        ):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /?token=hunter2 HTTP/1.1\r\nHost: x\r\n\r\n")
            await upstream.wait_for_requests(1)
            writer.close()
            async with asyncio.timeout(GUARD_SECONDS):
                await upstream.requests[0].left.wait()
    spans = {span.kind: span for span in collector.spans}
    assert spans.keys() == {"SERVER", "CLIENT"}
    assert all("http.response.status_code" not in span.attributes for span in spans.values())
    assert (spans["CLIENT"].attributes["error.type"], spans["SERVER"].attributes["url.path"]) == ("left", "/")
