"""The examples of README.md print what it says that they print."""

import re
import shlex
import subprocess
from collections.abc import Iterator

import pytest

from tests.stack import REPOSITORY, Stack, clean_environment, run_stack

pytestmark = [pytest.mark.timeout(300), pytest.mark.curl]

README = (REPOSITORY / "README.md").read_text("utf-8")
EXAMPLES = re.findall(r"^```console\n\$ (curl .+)\n((?:.*\n)*?)```$", README, re.MULTILINE)
AND_SO_ON = "...\n"
KEY = "development-key-change-me"
WRITTEN_EPOCH = re.findall(r'^\{"id":"(\w+)-1"\}$', README, re.MULTILINE)
"""The epoch of the log with which the page was written."""


class Terminal:
    """Runs the examples one after the other, as somebody does who tries them."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._epoch = ""

    def run(self, command: str, printed: str) -> str:
        """Gives what `command` prints, in the words of the page; of one that does not end, as much as there is of `printed`."""
        command = command.replace("http://localhost:8080", self._stack.url).replace("http://localhost:8081", self._stack.gateway.status_url)
        command = command.replace(WRITTEN_EPOCH[0], self._epoch)
        arguments = [*shlex.split(command), "--silent", "--show-error", "--noproxy", "*", "--max-time", "30"]
        expected = printed.removesuffix(AND_SO_ON).encode() if printed.endswith(AND_SO_ON) else None
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_environment()) as curl:
            assert curl.stdout
            assert curl.stderr
            output = curl.stdout.read() if expected is None else curl.stdout.read(len(expected))
            if expected is None:
                output += curl.stderr.read()
            else:
                curl.terminate()
        return self._translate(output.decode(errors="replace"))

    def _translate(self, output: str) -> str:
        if not self._epoch and (found := re.fullmatch(r'\{"id":"(\w+)-1"\}\s*', output)):
            self._epoch = found[1]
        return output.replace(self._epoch, WRITTEN_EPOCH[0]) if self._epoch else output


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """What the examples printed, tried in the order of the page."""
    with run_stack(tmp_path_factory.mktemp("stack"), PRODUCER_PUBLISH_KEYS=KEY) as stack:
        terminal = Terminal(stack)
        yield [terminal.run(command, printed) for command, printed in EXAMPLES]


def test_readme_has_examples_of_streams_and_of_topics() -> None:
    assert len(EXAMPLES) >= 10
    assert len([command for command, _ in EXAMPLES if "topic" in command]) >= 5


@pytest.mark.parametrize("number", range(len(EXAMPLES)), ids=[command for command, _ in EXAMPLES])
def test_example_prints_what_the_readme_says(outputs: list[str], number: int) -> None:
    _, printed = EXAMPLES[number]
    assert outputs[number].rstrip("\n") == printed.removesuffix(AND_SO_ON).rstrip("\n")
