"""Findings: the doctor's verdict on each thing that it checked."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["ok", "note", "warning", "problem"]
SEVERITIES: tuple[Severity, ...] = ("problem", "warning", "note", "ok")
"""Severities, most severe first."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. All but `ok` say what it means and what to do."""

    check: str
    severity: Severity
    seen: str
    means: str = ""
    do: str = ""


def healthy(findings: list[Finding]) -> bool:
    """Return whether no finding is a problem."""
    return all(finding.severity != "problem" for finding in findings)
