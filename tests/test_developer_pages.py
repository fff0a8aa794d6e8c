"""The pages for developers match the code: paths and names that they mention exist, and rooms, layers and targets are complete."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.kit.stack import REPOSITORY

PAGES = ("CONTRIBUTING.md", "SECURITY.md", "docs/architecture.md", "docs/resume.md")
FOLDERS = "bench|consumer|deploy|docs|eventstream|examples|gateway|install|producer|service|tests"
PATH = re.compile(rf"(?<![\w/.-])(?:(?:{FOLDERS})/[\w./-]*[\w/]|[\w-]*\.(?:md|toml|yml|yaml)|Makefile|Procfile|LICENSE)(?![\w*])")
STEP = re.compile(r"^\| `([\w./]+\.py)` \| (`\w+`(?:, `\w+`)*) \|", re.MULTILINE)
"""A row of a table: a module, and names that it defines."""


def text_of(page: str) -> str:
    return (REPOSITORY / page).read_text("utf-8")


def commands_of_lint() -> list[str]:
    """Return the commands of `make lint`."""
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", text_of("Makefile"), re.MULTILINE)
    assert recipe
    return [line.strip().replace("$(BIN)", ".venv/bin") for line in recipe[1].splitlines()]


def gateway_layers() -> list[str]:
    contracts = tomllib.loads(text_of("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    [layers] = [contract["layers"] for contract in contracts if contract.get("containers") == ["gateway"]]
    return [str(layer) for layer in layers]


def packages_of(folder: str) -> set[str]:
    return {module.parent.relative_to(REPOSITORY).as_posix() for module in (REPOSITORY / folder).glob("*/__init__.py")}


@pytest.mark.parametrize("page", PAGES)
def test_paths_on_the_page_exist(page: str) -> None:
    named = set(PATH.findall(text_of(page)))
    assert named
    assert sorted(path for path in named if not (REPOSITORY / path).exists()) == []


@pytest.mark.parametrize("page", PAGES)
def test_links_to_files_and_headings_lead_somewhere(page: str) -> None:
    broken = []
    for target, heading in re.findall(r"\]\((?!\w+:)([^)#]*)(?:#([^)]+))?\)", text_of(page)):
        file = ((REPOSITORY / page).parent / target) if target else REPOSITORY / page
        if not file.exists() or (heading and heading not in headings_of(file)):
            broken.append(f"{target}#{heading}")
    assert broken == []


def headings_of(file: Path) -> set[str]:
    """Return the anchors that forges give the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", file.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_modules_define_the_names_that_tables_give_them() -> None:
    steps = [(path, name) for path, names in STEP.findall(text_of("docs/architecture.md")) for name in re.findall(r"\w+", names)]
    assert steps
    assert [f"{path}: {name}" for path, name in steps if not defines(REPOSITORY / path, name)] == []


def defines(module: Path, name: str) -> bool:
    """Whether a module defines a class or a function with this name."""
    return re.search(rf"^ *(?:(?:async )?def|class) {name}\b", module.read_text("utf-8"), re.MULTILINE) is not None


@pytest.mark.parametrize("page", PAGES)
def test_classes_and_private_names_on_the_page_are_in_the_code(page: str) -> None:
    code = "".join(module.read_text("utf-8") for folder in FOLDERS.split("|") for module in (REPOSITORY / folder).rglob("*.py"))
    named = set(re.findall(r"`(_\w+|(?:[A-Z][a-z]+)+)\b[^`\n]*`", text_of(page)))
    assert sorted(named - set(re.findall(r"\w+", code))) == []


def test_every_package_has_a_row() -> None:
    rows = set(re.findall(r"^\| `([\w/]+)/` \|", text_of("docs/architecture.md"), re.MULTILINE))
    assert packages_of("gateway") | packages_of("producer") | packages_of("service") <= rows


def test_picture_shows_the_layers_of_the_contract() -> None:
    picture = re.search(r"```text\n(.*?)```", text_of("docs/architecture.md"), re.DOTALL)
    assert picture
    shown = [set(re.findall(r"\[ *(\w+) *\]", line)) for line in picture[1].splitlines() if "[" in line]
    assert shown == [set(re.findall(r"\w+", layer)) for layer in gateway_layers()]


def test_every_make_target_has_its_duration() -> None:
    targets = set(re.findall(r"^([a-z]+):.* ## ", text_of("Makefile"), re.MULTILINE))
    rows = re.findall(r"^\| `make ([a-z]+)` \| [^|]+ \| [^|]+ \|$", text_of("CONTRIBUTING.md"), re.MULTILINE)
    assert sorted(rows) == sorted(targets - {"help"})


def test_commits_are_checked_by_what_make_lint_runs() -> None:
    [local] = yaml.safe_load(text_of(".pre-commit-config.yaml"))["repos"]
    assert [hook["entry"] for hook in local["hooks"]] == commands_of_lint()
