"""Each service in turn is killed under load; the consumer's log has every event once all the same."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.stack import DEMO_TEXT, REPOSITORY, clean_environment, run_stack, wait_until

pytestmark = pytest.mark.timeout(300)

REPEAT = 20
LAST = REPEAT * len(DEMO_TEXT)
SOURCE = f"/?ids=true&interval_ms=5&repeat={REPEAT}"


def read_log(directory: Path) -> list[dict[str, Any]]:
    """Gives the complete lines of a log that is small enough to be one segment."""
    [segment] = directory.glob("*.jsonl")
    return [json.loads(line) for line in segment.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def wait_for_events(directory: Path, number: int) -> None:
    """Returns when the event with this number is in the log."""
    wait_until(lambda: any(int(record["id"]) >= number for record in read_log(directory)), f"event {number} in the log")


def verify(directory: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "consumer", "verify", str(directory)]
    return subprocess.run(command, cwd=REPOSITORY, env=clean_environment(), capture_output=True, text=True, timeout=60)


def assert_log_is_complete(directory: Path) -> None:
    verdict = verify(directory)
    assert verdict.returncode == 0, verdict.stdout + verdict.stderr
    records = read_log(directory)
    assert [record["id"] for record in records] == [str(number) for number in range(1, LAST + 1)]
    assert "".join(record["data"] for record in records) == DEMO_TEXT * REPEAT
    assert {record["type"] for record in records} == {"message"}


def test_consumer_logs_every_event_through_the_gateway(tmp_path: Path) -> None:
    with run_stack(tmp_path, SOURCE, PRODUCER_RETRY_MS="100", CONSUMER_RECONNECT_INITIAL_SECONDS="0.1") as stack:
        wait_for_events(stack.log_dir, LAST)
    assert_log_is_complete(stack.log_dir)


@pytest.mark.parametrize("names", [["producer"], ["gateway"], ["consumer"], ["consumer", "producer", "gateway"]], ids="+".join)
def test_log_is_complete_when_services_are_killed(tmp_path: Path, names: list[str]) -> None:
    with run_stack(tmp_path, SOURCE, PRODUCER_RETRY_MS="100", CONSUMER_RECONNECT_INITIAL_SECONDS="0.1") as stack:
        killed = [service for service in stack.services if service.name in names]
        for share in (0.3, 0.6):
            wait_for_events(stack.log_dir, int(share * LAST))
            for service in killed:
                service.kill()
            for service in killed:
                service.start()
            for service in killed:
                service.wait_until_ready()
        wait_for_events(stack.log_dir, LAST)
    assert_log_is_complete(stack.log_dir)
