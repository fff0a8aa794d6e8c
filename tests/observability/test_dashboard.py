"""The files in `deploy/metrics/` are valid, and query only existing metrics."""

import json
import re
import subprocess

import pytest
import yaml

from service.version import VERSION
from tests.kit.stack import REPOSITORY
from tests.observability.dashboard import METRICS, alerts, expressions, named, panels
from tests.test_repository import SERVICES, metrics


def test_every_metric_on_the_dashboard_and_in_alerts_is_in_the_code() -> None:
    known = set().union(*map(metrics, SERVICES))
    asked = set().union(*map(named, [*expressions(), *alerts().values()]))
    assert len(asked) > 40
    assert asked - known == set()


def test_dashboard_queries_the_provisioned_source_and_no_panel_is_empty() -> None:
    dashboard = json.loads((METRICS / "grafana/dashboards/eventstream.json").read_text())
    [source] = yaml.safe_load((METRICS / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"]
    drawn = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert {panel["datasource"]["uid"] for panel in drawn} == {source["uid"]}
    assert {panel["title"] for panel in drawn} == panels().keys()
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


@pytest.mark.prometheus
def test_promtool_accepts_configuration_and_alerts() -> None:
    for command in (["check", "config", "--lint-fatal", "prometheus.yml"], ["test", "rules", "alerts_test.yml"]):
        done = subprocess.run(["promtool", *command], cwd=METRICS, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_test() -> None:
    tested = re.findall(r"alertname: (\w+)", (METRICS / "alerts_test.yml").read_text())
    assert set(tested) == alerts().keys()


@pytest.mark.docker
def test_compose_profile_has_prometheus_and_grafana_for_this_machine_only() -> None:
    command = ["docker", "compose", "--profile", "metrics", "config", "--format", "json"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    services = json.loads(done.stdout)["services"]
    for name in ("prometheus", "grafana"):
        service = services[name]
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert not service["user"].startswith("0")
        assert {port["host_ip"] for port in service["ports"]} == {"127.0.0.1"}
        mounted = {volume["target"]: volume for volume in service["volumes"] if volume["type"] == "bind"}
        assert all(volume["read_only"] for volume in mounted.values())
        assert all((REPOSITORY / volume["source"]).exists() for volume in mounted.values())
    targets = [each["static_configs"][0]["targets"] for each in yaml.safe_load((METRICS / "prometheus.yml").read_text())["scrape_configs"]]
    assert [target.partition(":")[0] for [target] in targets] == ["gateway", "producer", "consumer"]
    assert all(target.partition(":")[0] in services for [target] in targets)


def test_release_is_the_same_everywhere() -> None:
    assert f'\nversion = "{VERSION}"\n' in (REPOSITORY / "pyproject.toml").read_text()
