"""`python -m gateway doctor`, run in a thread of the test's process."""

import asyncio
import io
import json
from dataclasses import dataclass
from typing import Any

from gateway.doctor.command import doctor

GUARD_SECONDS = 30.0


@dataclass(frozen=True)
class Said:
    """What came of it."""

    status: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        """The report, of a run with --json."""
        whole: dict[str, Any] = json.loads(self.out)
        return whole

    def finding(self, check: str, part: str = "") -> dict[str, str]:
        """The most severe finding of that check, of a run with --json; `part` is `through` or `comparison`."""
        findings = (self.report[part] if part else self.report)["findings"]
        order = ("problem", "warning", "note", "ok")
        found: dict[str, str] = min((each for each in findings if each["check"] == check), key=lambda each: order.index(each["severity"]))
        return found


async def consult(*arguments: str) -> Said:
    """Asks the doctor."""
    out, err = io.StringIO(), io.StringIO()
    async with asyncio.timeout(GUARD_SECONDS):
        status = await asyncio.to_thread(doctor, arguments, out, err)
    return Said(status, out.getvalue(), err.getvalue())
