"""A request on its way through all three services has one id, one trace, and metrics that Prometheus accepts."""

import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.kit.stack import Stack, free_ports, run_stack
from tests.kit.waiting import GUARD_SECONDS, wait_until
from tests.observability.collector import Told, collecting
from tests.observability.dashboard import METRICS, alerts, expressions

pytestmark = [pytest.mark.timeout(180), pytest.mark.prometheus]

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
SECRET = "hunter2"
ASKED = {"X-Request-Id": "asked-1", "traceparent": f"00-{TRACE}-{PARENT}-01", "Authorization": f"Bearer {SECRET}"}
KEPT = {"X-Request-Id": "kept-1", "Content-Type": "application/json"}
SETTLE_SECONDS = 60
MAY_BE_EMPTY = {"gateway_upstream_reconnections_total", "producer_gaps_total"}
"""Metrics of things that do not happen here."""


def may_be_empty(expression: str) -> bool:
    return any(name in expression for name in MAY_BE_EMPTY)


@dataclass
class Seen:
    """The observations during and after some requests through the stack."""

    answers: dict[str, httpx.Response]
    logs: dict[str, list[dict[str, Any]]]
    """Of each service, all of it."""
    spans: list[Told]
    exported: bytes
    results: dict[str, list[Any]]
    """Prometheus's results for each expression of the dashboard."""
    rules: list[dict[str, Any]]

    def span(self, **wanted: object) -> Told:
        """Return the only span with these fields and attributes, named with _ for dots."""
        found = [span for span in self.spans if all(_look(span, name) == value for name, value in wanted.items())]
        assert len(found) == 1, (wanted, found)
        return found[0]


def _look(span: Told, name: str) -> object:
    if hasattr(span, name):
        return getattr(span, name)
    return next((value for key, value in span.attributes.items() if key.replace(".", "_") == name), None)


class Prometheus:
    """A Prometheus with the project's configuration, but these targets."""

    def __init__(self, directory: Path, stack: Stack) -> None:
        config = yaml.safe_load((METRICS / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "1s"}
        config["rule_files"] = [str(METRICS / "alerts.yml")]
        ports = {service.name: service.status_url.removeprefix("http://") for service in stack.services}
        for job in config["scrape_configs"]:
            job["static_configs"] = [{"targets": [ports[job["job_name"]]]}]
        (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
        [port] = free_ports(1)
        self._address = f"http://127.0.0.1:{port}"
        command = ["prometheus", f"--config.file={directory / 'prometheus.yml'}", f"--storage.tsdb.path={directory / 'tsdb'}"]
        with (directory / "prometheus.output").open("wb") as output:
            self._process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=output, stderr=output)

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """Return the data of an answer. While it loads its storage, it answers 503."""

        def ask() -> httpx.Response | None:
            answer = httpx.get(f"{self._address}/api/v1/{path}", params=query, trust_env=False, timeout=GUARD_SECONDS)
            return None if answer.status_code == 503 else answer

        answer = wait_until(ask, f"an answer of Prometheus to {path}").json()
        assert answer["status"] == "success", (query, answer)
        return dict(answer["data"])

    def query(self, expression: str) -> list[Any]:
        return list(self.get("query", query=expression)["result"])

    def wait_until_ready(self) -> None:
        """Return when it answers queries. While it loads its storage it answers them with 503 and plain text."""

        def ready() -> bool:
            try:
                return httpx.get(f"{self._address}/-/ready", trust_env=False, timeout=10).status_code == 200
            except httpx.TransportError:
                return False  # its port is not open yet

        wait_until(ready, "Prometheus is ready")

    def wait_for(self, expression: str) -> None:
        wait_until(lambda: bool(self.query(expression)), f"{expression} in Prometheus")

    def ask_for(self, expressions: list[str]) -> dict[str, list[Any]]:
        """Return its results for each; an empty result counts only after enough rounds of scraping."""
        deadline = time.monotonic() + SETTLE_SECONDS
        results: dict[str, list[Any]] = {}
        while missing := [expression for expression in expressions if not results.get(expression) and not may_be_empty(expression)]:
            results |= {expression: self.query(expression) for expression in missing}
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)
        return {expression: self.query(expression) for expression in expressions if may_be_empty(expression)} | results

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(20)


def ask(stack: Stack) -> dict[str, httpx.Response]:
    """Send one request of each kind."""
    with httpx.Client(base_url=stack.url, trust_env=False, timeout=30) as http:
        answers = {
            "direct": http.get("/?interval_ms=0&token=hunter2", headers=ASKED),
            "kept": http.post("/sse?interval_ms=0", headers=KEPT, json={"message": "one"}),
            "odd id": http.get("/livez", headers={"X-Request-Id": "no good\tid"}),
            "no id": http.get("/livez"),
            "producer's error": http.put("/", headers={"X-Request-Id": "wrong-1"}),
            "gateway's error": http.get("/streams/0000", headers={"X-Request-Id": "wrong-2"}),
        }
        published = {"X-Request-Id": "published-1", "Content-Type": "application/json"}
        answers["published"] = http.post("/topics/news/events", headers=published, json={"data": "x"})
    wait_until(lambda: stack.consumer.metric("consumer_events_total") >= 1, "the consumer has the event")
    return answers


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    directory = tmp_path_factory.mktemp("stack")
    with collecting() as collector, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        with run_stack(directory, PRODUCER_PUBLISH_KEYS="") as stack:
            prometheus = Prometheus(directory, stack)
            try:
                prometheus.wait_until_ready()
                prometheus.wait_for("count(up == 1) == 3")
                answers = ask(stack)
                results = prometheus.ask_for(expressions())
                rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
            finally:
                prometheus.stop()
        logs = {service.name: service.log() for service in stack.services}
        yield Seen(answers, logs, list(collector.spans), b"".join(collector.bodies), results, rules)


def lines(seen: Seen, service: str, event: str, **facts: object) -> list[dict[str, Any]]:
    return [line for line in seen.logs[service] if line.get("event") == event and facts.items() <= line.items()]


def test_id_of_the_client_is_on_the_answer_and_in_the_log_of_both_services(seen: Seen) -> None:
    assert seen.answers["direct"].headers.get_list("X-Request-Id") == ["asked-1"]
    assert len(lines(seen, "gateway", "stream closed", request_id="asked-1", route="/")) == 1
    assert len(lines(seen, "producer", "stream ended", request_id="asked-1", route="GET /")) == 1


def test_kept_stream_keeps_its_request_id(seen: Seen) -> None:
    assert seen.answers["kept"].headers["X-Request-Id"] == "kept-1"
    assert len(lines(seen, "gateway", "stream closed", request_id="kept-1")) == 1
    assert len(lines(seen, "gateway", "stream ended", request_id="kept-1", state="complete")) == 1
    assert len(lines(seen, "producer", "stream ended", request_id="kept-1", route="POST /sse")) == 1


def test_id_is_created_for_a_missing_one_or_one_that_could_corrupt_a_log(seen: Seen) -> None:
    made = {seen.answers[name].headers["X-Request-Id"] for name in ("odd id", "no id")}
    assert len(made) == 2
    assert all(len(id) == 32 and id.isalnum() for id in made)


@pytest.mark.parametrize(("name", "status", "id"), [("producer's error", 405, "wrong-1"), ("gateway's error", 404, "wrong-2")])
def test_errors_name_the_request(seen: Seen, name: str, status: int, id: str) -> None:
    answer = seen.answers[name]
    assert (answer.status_code, answer.headers["X-Request-Id"], answer.json()["request_id"]) == (status, id, id)


def test_publishing_which_bypasses_the_framework_has_an_id_too(seen: Seen) -> None:
    assert seen.answers["published"].headers["X-Request-Id"] == "published-1"
    assert seen.span(service="producer", eventstream_request_id="published-1").name == "POST /topics/{topic:path}/events"


def test_consumer_logs_the_same_id_for_its_connection_as_the_gateway(seen: Seen) -> None:
    [connected] = lines(seen, "consumer", "connected")
    assert "source_request_id" not in connected
    [closed] = lines(seen, "gateway", "stream closed", request_id=connected["request_id"])
    assert closed["route"] == "/topics/"


def test_trace_of_the_client_continues_through_gateway_and_producer(seen: Seen) -> None:
    served = seen.span(service="gateway", kind="SERVER", trace=TRACE)
    asked = seen.span(service="gateway", kind="CLIENT", trace=TRACE)
    produced = seen.span(service="producer", trace=TRACE)
    assert (served.parent, asked.parent, produced.parent) == (PARENT, served.id, asked.id)
    assert (served.name, asked.name, produced.name) == ("GET /", "GET", "GET /")
    assert {span.attributes["eventstream.request_id"] for span in (served, asked, produced)} == {"asked-1"}


def test_span_of_a_stream_has_verdict_and_counts(seen: Seen) -> None:
    served = seen.span(service="gateway", kind="SERVER", trace=TRACE)
    [line] = lines(seen, "gateway", "stream closed", request_id="asked-1")
    assert served.attributes["eventstream.mode"] == "direct"
    assert served.attributes["eventstream.verdict"] == "complete"
    assert served.attributes["eventstream.blocks"] == line["blocks"] > 10
    assert served.attributes["eventstream.bytes"] == line["bytes"]
    assert served.attributes["eventstream.heartbeats"] == 0
    assert served.attributes["http.response.status_code"] == 200
    assert (served.attributes["url.path"], served.attributes["http.route"]) == ("/", "/")
    produced = seen.span(service="producer", trace=TRACE)
    assert produced.attributes["eventstream.verdict"] == "completed"
    assert produced.attributes["eventstream.blocks"] == line["blocks"]


def test_connection_of_the_consumer_is_one_trace_through_all_three(seen: Seen) -> None:
    connected = seen.span(service="consumer")
    served = seen.span(service="gateway", kind="SERVER", trace=connected.trace)
    asked = [span for span in seen.spans if (span.service, span.kind, span.trace) == ("gateway", "CLIENT", connected.trace)]
    produced = [span for span in seen.spans if (span.service, span.trace) == ("producer", connected.trace)]
    assert (connected.parent, served.parent) == ("", connected.id)
    assert [span.parent for span in asked] == [served.id]
    assert [span.parent for span in produced] == [asked[0].id]
    assert served.links == (asked[0].id,)
    assert served.attributes["eventstream.mode"] == "shared"
    assert connected.attributes["eventstream.blocks"] >= 1


def test_kept_stream_has_a_span_for_its_upstream(seen: Seen) -> None:
    served = seen.span(service="gateway", kind="SERVER", eventstream_request_id="kept-1")
    asked = seen.span(service="gateway", kind="CLIENT", eventstream_request_id="kept-1")
    assert (asked.parent, asked.attributes["eventstream.verdict"], asked.failed) == (served.id, "complete", False)
    assert asked.attributes["eventstream.blocks"] == served.attributes["eventstream.blocks"] == 3


def test_spans_and_logs_contain_no_query_no_header_and_no_body(seen: Seen) -> None:
    assert SECRET.encode() not in seen.exported
    assert SECRET not in json.dumps(seen.logs)


def test_prometheus_has_results_for_every_expression_of_the_dashboard(seen: Seen) -> None:
    assert len(seen.results) >= 50
    assert [expression for expression, result in seen.results.items() if not result and not may_be_empty(expression)] == []


def test_every_alert_can_be_evaluated(seen: Seen) -> None:
    assert {rule["name"] for rule in seen.rules} == alerts().keys()
    assert [(rule["name"], rule.get("lastError")) for rule in seen.rules if rule["health"] == "err"] == []
