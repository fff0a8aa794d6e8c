"""Test that the examples in README.md are real output of the doctor."""

import re
import shlex
from pathlib import Path

import pytest

from tests.doctor.consulting import consult
from tests.doctor.proxies import nginx
from tests.doctor.source import Source
from tests.doctor.test_conventions import NOT_FOUND, UI_MESSAGES
from tests.kit.stack import REPOSITORY
from tests.kit.upstream import ScriptedUpstream

WRITTEN_URL = "http://localhost/live"
[(COMMAND, PRINTED), (CHAT_COMMAND, CHAT_PRINTED)] = re.findall(
    r"^```console\n\$ (python -m gateway doctor .+)\n((?:.*\n)*?)```$", (REPOSITORY / "README.md").read_text("utf-8"), re.MULTILINE
)


def without_numbers(report: str) -> list[str]:
    """Return the findings of a report, one a line, with all numbers replaced by #."""
    joined = re.sub(r"\n {12}", " ", report)
    return [re.sub(r"\d+(\.\d+)*", "#", line) for line in joined.splitlines()]


@pytest.mark.nginx
async def test_doctor_reports_a_buffering_nginx_as_in_the_readme(tmp_path: Path) -> None:
    async with Source() as source, nginx(source.url, tmp_path) as url:
        here = f"{url}/default/live"
        _, _, _, _, *arguments = shlex.split(COMMAND.replace(WRITTEN_URL, here))
        said = await consult(*arguments)
    assert said.status == 1
    assert without_numbers(said.out.replace(here, WRITTEN_URL)) == without_numbers(PRINTED)


async def test_doctor_says_that_a_chat_cannot_be_resumed_as_in_the_readme() -> None:
    command, _, _ = CHAT_COMMAND.partition(" | ")
    async with ScriptedUpstream(lambda asked: UI_MESSAGES if asked.method == "POST" else NOT_FOUND) as server:
        _, _, _, _, *arguments = shlex.split(command.replace("http://localhost", server.url))
        said = await consult(*arguments)
    assert said.status == 0
    assert CHAT_PRINTED in said.out
