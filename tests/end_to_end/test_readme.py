"""The examples of README.md print what it says that they print."""

import re
import shlex
import subprocess
from collections.abc import Iterator

import pytest

from tests.stack import REPOSITORY, Stack, clean_environment, run_stack

pytestmark = [pytest.mark.timeout(300), pytest.mark.curl]

EXAMPLES = re.findall(r"^```console\n\$ (curl .+)\n((?:.*\n)*?)```$", (REPOSITORY / "README.md").read_text("utf-8"), re.MULTILINE)
AND_SO_ON = "...\n"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with run_stack(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


def test_readme_has_examples() -> None:
    assert len(EXAMPLES) >= 5


@pytest.mark.parametrize(("command", "printed"), EXAMPLES, ids=[command for command, _ in EXAMPLES])
def test_example_prints_what_the_readme_says(stack: Stack, command: str, printed: str) -> None:
    command = command.replace("http://localhost:8080", stack.url).replace("http://localhost:8081", stack.gateway.status_url)
    done = subprocess.run(
        [*shlex.split(command), "--silent", "--show-error", "--noproxy", "*"],
        capture_output=True,
        text=True,
        env=clean_environment(),
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    if printed.endswith(AND_SO_ON):
        assert done.stdout.startswith(printed.removesuffix(AND_SO_ON))
    else:
        assert done.stdout.rstrip("\n") == printed.rstrip("\n")
