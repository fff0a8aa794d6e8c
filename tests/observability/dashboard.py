"""The Prometheus queries in the files of `deploy/metrics/`."""

import json
import re
from typing import Any

import yaml

from tests.kit.stack import REPOSITORY

METRICS = REPOSITORY / "deploy/metrics"


def panels() -> dict[str, list[str]]:
    """Return the expressions of each panel of the dashboard that has any, by title."""
    dashboard = json.loads((METRICS / "grafana/dashboards/eventstream.json").read_text())
    found: dict[str, list[str]] = {}
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            found.setdefault(panel["title"], []).append(target["expr"])
    return found


def expressions() -> list[str]:
    """Return all expressions of the dashboard, with an interval in place of Grafana's variable."""
    return [expression.replace("$__rate_interval", "10s") for each in panels().values() for expression in each]


def alerts() -> dict[str, str]:
    """Return the expression of each alert by name."""
    groups: list[dict[str, Any]] = yaml.safe_load((METRICS / "alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}


def named(expression: str) -> set[str]:
    """Return the metrics in an expression, with the names of the services' code."""
    names = re.findall(r"\b(?:producer|gateway|consumer)_[a-z_]+\b", re.sub(r'"[^"]*"', '""', expression))
    return {re.sub("_(bucket|sum|count)$", "", name) for name in names}
