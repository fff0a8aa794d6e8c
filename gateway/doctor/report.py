"""Write the report: as text for people, as JSON for programs."""

import collections
import dataclasses
import json
import statistics
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .comparison import Comparison
from .findings import SEVERITIES, Finding, healthy

_WIDTH = 120
_INDENT = 10


@dataclass(frozen=True, slots=True)
class Section:
    """The report on one path."""

    url: str
    findings: tuple[Finding, ...]
    measured: dict[str, object]


@dataclass(frozen=True, slots=True)
class Report:
    """The whole report."""

    direct: Section
    through: Section | None = None
    comparison: Comparison | None = None

    @property
    def findings(self) -> list[Finding]:
        """Findings of all parts."""
        parts = (self.direct, self.through, self.comparison)
        return [finding for part in parts if part is not None for finding in part.findings]

    @property
    def healthy(self) -> bool:
        """Whether no finding is a problem."""
        return healthy(self.findings)


def write_json(report: Report) -> str:
    """Return the report as a JSON object."""
    whole: dict[str, object] = {"healthy": report.healthy, "counts": _counts(report.findings)}
    whole |= dataclasses.asdict(report.direct)
    if report.through is not None:
        whole["through"] = dataclasses.asdict(report.through)
    if report.comparison is not None:
        whole["comparison"] = _compared(report.comparison)
    return json.dumps(whole, ensure_ascii=False, indent=2)


def write_text(report: Report) -> str:
    """Return the report as text, most severe findings first."""
    lines = [report.direct.url, *_findings(report.direct.findings)]
    if report.through is not None and report.comparison is not None:
        lines += ["", f"through {report.through.url}", *_findings(report.through.findings)]
        lines += ["", "changes on the path through", *_findings(report.comparison.findings), *_alterations(report.comparison)]
    counts = _counts(report.findings)
    said = ", ".join(f"{count} {name}{'s' if count != 1 else ''}" for name, count in counts.items() if name != "ok" and count)
    verdict = "healthy" if report.healthy else "not healthy"
    return "\n".join([*lines, "", f"{verdict}: {said or 'no complaints'}", ""])


def _compared(comparison: Comparison) -> dict[str, object]:
    """Return the comparison as a dictionary, with a summary of the delays."""
    compared = dataclasses.asdict(comparison)
    delays = compared.pop("delays")
    if delays:
        compared["delay_seconds"] = {"median": round(statistics.median(delays), 6), "most": round(max(delays), 6), "blocks": len(delays)}
    return compared


def _counts(findings: Sequence[Finding]) -> dict[str, int]:
    count = collections.Counter(finding.severity for finding in findings)
    return {severity: count[severity] for severity in SEVERITIES}


def _findings(findings: Sequence[Finding]) -> Iterator[str]:
    for finding in sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)):
        yield from _entry(finding.severity, f"{finding.check}: {finding.seen}")
        if finding.means:
            yield from _entry("", f"means: {finding.means}")
            yield from _entry("", f"do: {finding.do}")


def _alterations(comparison: Comparison) -> Iterator[str]:
    for alteration in comparison.alterations:
        yield from _entry("changed", alteration.what)
        if (difference := alteration.difference) is not None:
            yield from _entry("", f"first at byte {difference.offset}")
            for name, text, hexadecimal in (
                ("direct", difference.direct_text, difference.direct_hex),
                ("through", difference.through_text, difference.through_hex),
            ):
                yield f"{'':{_INDENT}}{name:8}{text}"
                yield f"{'':{_INDENT}}{'':8}{hexadecimal}"


def _entry(margin: str, text: str) -> list[str]:
    first, rest = f"{margin:{_INDENT}}", " " * _INDENT
    return textwrap.wrap(text, _WIDTH, initial_indent=first, subsequent_indent=rest + "  ", break_long_words=False, break_on_hyphens=False)
