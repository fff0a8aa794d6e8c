"""The commands that check a commit are those of `make lint`."""

import re

import yaml

from tests.kit.stack import REPOSITORY


def text_of(page: str) -> str:
    return (REPOSITORY / page).read_text("utf-8")


def commands_of_lint() -> list[str]:
    """Return the commands of `make lint`."""
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", text_of("Makefile"), re.MULTILINE)
    assert recipe
    return [line.strip().replace("$(BIN)", ".venv/bin") for line in recipe[1].splitlines()]


def test_commits_are_checked_by_what_make_lint_runs() -> None:
    [local] = yaml.safe_load(text_of(".pre-commit-config.yaml"))["repos"]
    assert [hook["entry"] for hook in local["hooks"]] == commands_of_lint()
