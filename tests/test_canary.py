"""`make canary` takes off the upper limits of the direct dependencies, and says what differs and what failed."""

from tests.canary import differences, direct_dependencies, failures

GROUPS = """
[dependency-groups]
base = ["aiohttp>=3.14.3,<4", "uvloop>=0.22; sys_platform != 'win32'"]
dev = [{ include-group = "base" }, "flask==3.1.3", "pyjwt[crypto]>=2.10"]
"""
REPORT = """<testsuites><testsuite>
<testcase classname="tests.a" name="test_good"/><testcase classname="tests.a" name="test_bad"><failure/></testcase>
<testcase classname="tests.b" name="test_broken"><error/></testcase><testcase classname="tests.b" name="test_left"><skipped/></testcase>
</testsuite></testsuites>"""


def test_upper_limits_are_taken_off() -> None:
    expected = ["aiohttp>=3.14.3", "flask>=3.1.3", "pyjwt[crypto]>=2.10", "uvloop>=0.22; sys_platform != 'win32'"]
    assert direct_dependencies(GROUPS) == expected


def test_versions_that_differ_from_the_lock_are_named() -> None:
    lock = "aiohttp==3.14.5 \\\n    --hash=sha256:1\nPyJWT[crypto]==2.10.1 ; python_version < '4' \\\n"
    assert differences(lock, "aiohttp==3.15.0\npyjwt==2.10.1\nnew==1\n") == ["aiohttp 3.14.5 → 3.15.0", "new not locked → 1"]


def test_failed_tests_are_named() -> None:
    assert failures(REPORT) == ["tests.a::test_bad", "tests.b::test_broken"]
