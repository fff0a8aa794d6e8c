"""Docstrings, comments, messages and names are plain English, as far as a program can check that."""

import re
import subprocess
from collections.abc import Iterator

from tests.kit.stack import REPOSITORY

WRONG = {
    "begin with a verb in the imperative": re.compile(r'^ *"{1,3}(Gives|Tells|Takes note|Says|Lets)\b'),
    "name the actor": re.compile(
        r'(?<![a-z])([Ww]hoever|[Nn]obody|[Ss]omebody)(?![a-z])|(^[ #"]*|[.:;] )Who (?!.*\?)|def test_(who|whom|what|those_who)_'
    ),
    "give the time or the number": re.compile(r"\b(?i:so long|so many)\b"),
}
"""What to do instead, and an expression for the lines where it is due."""


def faults(text: str) -> Iterator[tuple[int, str]]:
    """Yield the number of each line that has a fault, and what to do instead."""
    for number, line in enumerate(text.splitlines(), 1):
        plain, _, _ = line.partition(" -- ")  # a comment in SQL stays: files of earlier versions are recognized by their whole statements
        yield from ((number, advice) for advice, wrong in WRONG.items() if wrong.search(plain))


def test_modules_are_written_in_plain_english() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "*.py", "*.js", "*.html", "gateway/README.md", "producer/README.md", "consumer/README.md", "docs/resume.md"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    modules = [name for name in listed if name != "tests/test_english.py"]
    assert len(modules) > 100
    assert [f"{name}:{line}: {advice}" for name in modules for line, advice in faults((REPOSITORY / name).read_text())] == []


def test_each_fault_is_found() -> None:
    verb, actor, number = WRONG
    examples = {
        '    """Gives the block."""': [verb],
        "# Nobody reads it.": [actor],
        "def test_told_to_nobody():": [actor],
        "def test_who_comes_back_waits():": [actor],
        'log.info("refused; Who comes back waits")': [actor],
        '"""Return after so long."""': [number],
        '"""Return the block for a client who asks."""': [],
        "owner TEXT -- empty: nobody": [],
    }
    assert {line: [advice for _, advice in faults(line)] for line in examples} == examples
