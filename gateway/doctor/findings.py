"""What the doctor says: one finding for each thing that was looked at."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["ok", "note", "warning", "problem"]
SEVERITIES: tuple[Severity, ...] = ("problem", "warning", "note", "ok")
"""The most severe first."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. All but `ok` say what it means and what to do."""

    check: str
    severity: Severity
    seen: str
    means: str = ""
    do: str = ""


def healthy(findings: list[Finding]) -> bool:
    """Tells whether no finding is a problem."""
    return all(finding.severity != "problem" for finding in findings)
