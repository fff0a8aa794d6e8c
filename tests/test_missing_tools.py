"""Tests whose tools are missing are skipped or fail."""

import re
import subprocess
import sys

import pytest

from tests.kit.stack import REPOSITORY, clean_environment

pytestmark = pytest.mark.timeout(300)

MODULES = ["tests/compose/test_compose.py", "tests/browser/test_browser.py", "tests/end_to_end/test_make_run.py"]
ADVICE = ("install Docker Engine with Compose v2", "install the package chromium", "install the package make")

PLUGINS = ("-p", "pytest_asyncio.plugin", "-p", "pytest_timeout")
"""The plug-ins with settings in pyproject.toml; loading the others too takes longer than the tests."""


def run_without_tools(**environ: str) -> tuple[int, str]:
    """Run tests that need tools where no program can be found, and return exit status and report."""
    command = [sys.executable, "-m", "pytest", "-rEfs", "-p", "no:cacheprovider", *PLUGINS, *MODULES]
    environ = clean_environment() | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "CI": "", "COLUMNS": "200"} | environ | {"PATH": ""}
    done = subprocess.run(command, cwd=REPOSITORY, env=environ, capture_output=True, text=True, timeout=280)
    return done.returncode, done.stdout


def test_tests_without_their_tool_are_skipped_with_what_to_install() -> None:
    status, report = run_without_tools()
    assert status == 0
    assert [advice for advice in ADVICE if advice not in report] == []
    assert re.fullmatch(r"=+ \d+ skipped in .*", report.splitlines()[-1])


def test_tests_without_their_tool_fail_in_ci() -> None:
    status, report = run_without_tools(CI="true")
    assert status == 1
    assert [advice for advice in ADVICE if advice not in report] == []
    assert re.fullmatch(r"=+ \d+ errors? in .*", report.splitlines()[-1])
