"""The examples of README.md print the output that it shows."""

import re
import shlex
import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.kit.stack import REPOSITORY, Stack, clean_environment, run_stack

pytestmark = [pytest.mark.timeout(300), pytest.mark.curl]

README = (REPOSITORY / "README.md").read_text("utf-8")
EXAMPLES = re.findall(r"^```console\n\$ (curl .+)\n((?:.*\n)*?)```$", README, re.MULTILINE)
AND_SO_ON = "...\n"
CTRL_C = "^C\n"
ENDINGS = (AND_SO_ON, CTRL_C)
"""The end of the output of an example that does not end by itself."""
KEY = "development-key-change-me"
WRITTEN_EPOCH = re.findall(r'^\{"id":"(\w+)-1"\}$', README, re.MULTILINE)
"""The epoch of the log with which the page was written."""
STREAM = re.compile(r"\b[0-9a-f]{32}\b")
WRITTEN_STREAMS = list(dict.fromkeys(STREAM.findall(README)))
"""The ids of the kept streams with which the page was written, in its order."""


class Terminal:
    """Runs the examples one after the other, as a reader does."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self._places = {"http://localhost:8080": stack.url, "http://localhost:8081": stack.gateway.status_url}
        self._here: dict[str, str] = {}
        """This run's values for the written epoch and the written streams."""
        self.outputs = [self._run(command, printed) for command, printed in EXAMPLES]
        """The output of each example, with the ids of the page."""

    def _run(self, command: str, printed: str) -> str:
        """Return the output of `command`, with the ids of the page; of an endless one, as much as `printed` has."""
        for written, here in (self._places | self._here).items():
            command = command.replace(written, here)
        arguments = [*shlex.split(command), "--silent", "--show-error", "--noproxy", "*", "--max-time", "30"]
        shown = body_of(printed)
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_environment()) as curl:
            assert curl.stdout
            assert curl.stderr
            if shown == printed:
                output = curl.stdout.read() + curl.stderr.read()
            else:
                output = curl.stdout.read(len(shown.encode()))
                curl.send_signal(signal.SIGINT)
        return self._translate(output.decode(errors="replace"))

    def _translate(self, output: str) -> str:
        if found := re.fullmatch(r'\{"id":"(\w+)-1"\}\s*', output):
            self._here.setdefault(WRITTEN_EPOCH[0], found[1])
        for stream in dict.fromkeys(STREAM.findall(output)):
            if stream not in self._here.values():
                self._here[next(written for written in WRITTEN_STREAMS if written not in self._here)] = stream
        for written, here in self._here.items():
            output = output.replace(here, written)
        return output


def body_of(printed: str) -> str:
    """Return the command's own output in what the page shows."""
    return next((printed.removesuffix(ending) for ending in ENDINGS if printed.endswith(ending)), printed)


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    with run_stack(tmp_path_factory.mktemp("stack"), PRODUCER_PUBLISH_KEYS=KEY) as stack:
        yield Terminal(stack)


def test_readme_has_examples_of_streams_and_of_topics() -> None:
    assert len(EXAMPLES) >= 12
    assert len([command for command, _ in EXAMPLES if "topic" in command]) >= 5


def test_readme_shows_an_answer_that_is_cut_and_how_to_resume_it() -> None:
    [cut] = [number for number, (_, printed) in enumerate(EXAMPLES) if printed.endswith(CTRL_C)]
    (_, before), (command, _) = EXAMPLES[cut : cut + 2]
    last_id = re.findall(r"^id: (\S+)$", before, re.MULTILINE)[-1]
    assert f"Last-Event-ID: {last_id}" in command


@pytest.mark.parametrize("number", range(len(EXAMPLES)), ids=[command for command, _ in EXAMPLES])
def test_example_prints_the_output_in_the_readme(terminal: Terminal, number: int) -> None:
    _, printed = EXAMPLES[number]
    assert terminal.outputs[number].rstrip("\n") == body_of(printed).rstrip("\n")


def test_producer_got_one_request_for_the_answer_that_was_cut(terminal: Terminal) -> None:
    asked = [command for command, _ in EXAMPLES if "/sse" in command]
    assert terminal.stack.gateway.metric("gateway_upstream_requests_total", route="/sse", method="POST") == len(asked)
