"""Run `python -m gateway doctor` in a thread of the test's process."""

import asyncio
import io
import json
from dataclasses import dataclass
from typing import Any

from gateway.doctor.command import doctor
from tests.kit.waiting import GUARD_SECONDS


@dataclass(frozen=True)
class Said:
    """Exit status and output of the doctor."""

    status: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        """Report of a run with --json."""
        whole: dict[str, Any] = json.loads(self.out)
        return whole

    def finding(self, check: str, part: str = "") -> dict[str, str]:
        """Return the most severe finding of a check, from a run with --json. `part` may be `through` or `comparison`."""
        findings = (self.report[part] if part else self.report)["findings"]
        order = ("problem", "warning", "note", "ok")
        found: dict[str, str] = min((each for each in findings if each["check"] == check), key=lambda each: order.index(each["severity"]))
        return found


async def consult(*arguments: str) -> Said:
    """Run the doctor."""
    out, err = io.StringIO(), io.StringIO()
    async with asyncio.timeout(GUARD_SECONDS):
        status = await asyncio.to_thread(doctor, arguments, out, err)
    return Said(status, out.getvalue(), err.getvalue())
