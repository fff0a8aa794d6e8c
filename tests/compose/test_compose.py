"""The stack in containers, as `docker compose up` runs it: locked down, streaming, and complete through crashes and restarts."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise

import httpx
import pytest

from tests.compose.project import DEVELOPMENT_KEY, SERVICES, Project, run_project
from tests.kit.publishing import Publisher, assert_log_has_each_event_once
from tests.kit.stack import DEMO_TEXT, REPOSITORY, clean_environment
from tests.kit.waiting import wait_until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

DEMO_DATA = ('{"cpu_percent":', "20")
"""The prefixes of the data of `demo.host` and `demo.clock`."""
READ_STATUS = """
import errno, json, pathlib
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
try:
    pathlib.Path("/app/written").touch()
except OSError as error:
    status["write"] = errno.errorcode[error.errno]
print(json.dumps({name: value.strip() for name, value in status.items()}))
"""


@pytest.fixture(scope="module")
def project(images: str) -> Iterator[Project]:
    """Run a stack of this module's own, with known events in its log, and stop it at the end."""
    with run_project(images, PRODUCER_TOPIC_RETRY_MS="200") as project:
        yield project


@pytest.fixture(scope="module")
def publishers(project: Project) -> Iterator[list[Publisher]]:
    """Publish without a pause until the test of the log ends the publishers."""
    publishers = [Publisher(project.url, topic, key=DEVELOPMENT_KEY) for topic in ("orders.new", "orders.paid")]
    with publishers[0], publishers[1]:
        yield publishers


def test_demo_topics_are_in_the_log_without_a_publisher(project: Project) -> None:
    wait_until(lambda: len(project.logged()) > 6, "events in the log")
    data = [record["data"] for record in project.logged()]
    hosts = [json.loads(text) for text in data if text.startswith("{")]
    assert hosts
    assert all(0 <= host["cpu_percent"] <= 100 and 0 < host["memory_percent"] <= 100 for host in hosts)
    times = [datetime.fromisoformat(text) for text in data if not text.startswith("{")]
    assert len(times) > 2
    assert all(1 <= (later - earlier).total_seconds() <= 5 for earlier, later in pairwise(times))


def test_publishing_needs_the_key_of_the_compose_file(project: Project) -> None:
    url = f"{project.url}/topics/orders/events"
    refused = [httpx.post(url, json={"data": "x"}, headers=headers, trust_env=False) for headers in ({}, {"Authorization": "Bearer no"})]
    assert [answer.status_code for answer in refused] == [401, 403]
    assert DEVELOPMENT_KEY not in "".join(answer.text for answer in refused)


def test_compose_logs_show_each_event(project: Project, publishers: list[Publisher]) -> None:
    wait_until(lambda: publishers[0].count() > 50, "acknowledged events")
    acknowledged = {id for publisher in publishers for id, _ in publisher.acknowledged}
    wait_until(lambda: acknowledged <= project.shown_ids(), "each of them in the output")


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("ended", ["killed", "stopped"])
def test_service_that_ends_under_load_resumes_where_it_was(project: Project, publishers: list[Publisher], service: str, ended: str) -> None:
    if ended == "killed":
        project.kill(service)
    else:
        project.restart(service)
    known = [publisher.count() for publisher in publishers]
    wait_until(lambda: all(publisher.count() > before for publisher, before in zip(publishers, known, strict=True)), "more events")
    newest = publishers[0].acknowledged[-1][0]
    wait_until(lambda: newest in {record["id"] for record in project.logged()}, f"event {newest} in the log")


def test_log_has_every_acknowledged_event_once_and_verifies_clean(project: Project, publishers: list[Publisher]) -> None:
    for publisher in publishers:
        publisher.stop()
    newest = {publisher.acknowledged[-1][0] for publisher in publishers}
    wait_until(lambda: newest <= {record["id"] for record in project.logged()}, "the last events in the log")
    assert_log_has_each_event_once(project.logged(), publishers, DEMO_DATA)
    project.compose("run", "--rm", "--no-deps", "-T", "consumer", "python", "-m", "consumer", "verify", "/data")
    project.compose("exec", "-T", "producer", "python", "-m", "producer", "check")


def test_demo_sentence_streams_through_the_published_port(project: Project) -> None:
    with httpx.stream("GET", project.url + "/", trust_env=False) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        lines = [(time.monotonic(), line) for line in response.iter_lines() if line.startswith("data: ")]
    assert "".join(line.removeprefix("data: ") for _, line in lines) == DEMO_TEXT
    assert lines[-1][0] - lines[0][0] > 0.1 * len(DEMO_TEXT) / 2, "the events came all at once"


def test_answer_survives_its_connection_and_a_restart_of_the_gateway(project: Project) -> None:
    words = "one two three four five six"
    with httpx.stream("POST", project.url + "/sse?split=word", json={"message": words}, trust_env=False) as answer:
        url = project.url + answer.headers["Location"]
        seen = next(line.removeprefix("id: ") for line in answer.iter_lines() if line.startswith("id: "))
    wait_until(lambda: httpx.head(url, trust_env=False).headers["Stream-State"] == "complete", "the answer kept")
    project.restart("gateway")
    rest = httpx.get(url, headers={"Last-Event-ID": seen}, trust_env=False)
    data = [line.removeprefix("data: ") for line in rest.text.splitlines() if line.startswith("data: ")]
    assert "".join(data) == words.removeprefix("one ")
    assert int(httpx.head(url, trust_env=False).headers["Stream-Blocks"]) == len(data) + 1


def test_demo_page_has_the_published_address_of_the_gateway(project: Project) -> None:
    admin = f"http://127.0.0.1:{project.admin_port}"
    assert httpx.get(admin + "/demo", trust_env=False).status_code == 200
    settings = httpx.get(admin + "/pages/settings.json", trust_env=False).json()
    assert settings["public_url"] == f"http://localhost:{project.public_port}"


def test_only_the_gateway_is_published(project: Project) -> None:
    published = {
        (service, inner, outer["HostPort"], outer["HostIp"])
        for service in SERVICES
        for inner, outers in project.inspect(service)["NetworkSettings"]["Ports"].items()
        for outer in outers or ()
    }
    public = {("gateway", "8080/tcp", str(project.public_port), address) for address in ("0.0.0.0", "::")}
    admin = ("gateway", "8081/tcp", str(project.admin_port), "127.0.0.1")
    assert admin in published
    assert published - public == {admin}
    assert published & public
    assert httpx.get(f"http://127.0.0.1:{project.admin_port}/readyz", trust_env=False).status_code == 200


def test_default_ports_are_8080_for_all_and_8081_for_this_machine() -> None:
    command = ["docker", "compose", "--env-file", os.devnull, "config", "--format", "json"]
    environ = {name: value for name, value in clean_environment().items() if name not in ("PUBLIC_PORT", "ADMIN_PORT", "PYTHON_IMAGE")}
    done = subprocess.run(command, cwd=REPOSITORY, env=environ, capture_output=True, check=True, timeout=60)
    services = json.loads(done.stdout)["services"]
    ports = [
        (name, port.get("host_ip"), port["published"], port["target"])
        for name, service in services.items()
        for port in service.get("ports", ())
    ]
    assert ports == [("gateway", None, "8080", 8080), ("gateway", "127.0.0.1", "8081", 8081)]
    assert {service["build"]["args"]["PYTHON_IMAGE"] for service in services.values()} == {"python:3.13-slim"}


@pytest.mark.parametrize("service", SERVICES)
def test_container_has_no_unneeded_rights(project: Project, service: str) -> None:
    status = json.loads(project.python(service, READ_STATUS))
    assert set(status["Uid"].split()) == {"10001"}
    assert set(status["Gid"].split()) == {"10001"}
    for capabilities in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb"):
        assert int(status[capabilities], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert status["write"] == "EROFS"
    assert project.inspect(service)["HostConfig"]["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "3"}


def test_down_ends_every_service_with_status_0_within_the_grace_time(project: Project) -> None:
    with httpx.stream("GET", project.url + "/?repeat=1000", trust_env=False) as response:
        next(response.iter_lines())
        project.compose("stop")  # a service that exceeds the grace time is killed, with status 137
    states = {service: project.inspect(service)["State"] for service in SERVICES}
    assert {service: (state["ExitCode"], state["OOMKilled"]) for service, state in states.items()} == dict.fromkeys(SERVICES, (0, False))
