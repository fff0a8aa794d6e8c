"""Each service in turn is killed under load, and the consumer's log still has every event once."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.kit.publishing import Publisher, assert_log_has_each_event_once
from tests.kit.stack import ALL_TOPICS, DEMO_TEXT, Stack, environment, run_stack, service_command
from tests.kit.waiting import GUARD_SECONDS, wait_until

pytestmark = pytest.mark.timeout(300)

QUICK = {"PRODUCER_TOPIC_RETRY_MS": "100", "PRODUCER_RETRY_MS": "100", "CONSUMER_RECONNECT_INITIAL_SECONDS": "0.1"}
REPEAT = 20
LAST = REPEAT * len(DEMO_TEXT)
TEXT = f"/?ids=true&interval_ms=5&repeat={REPEAT}"


def read_log(directory: Path) -> list[dict[str, Any]]:
    """Return the complete lines of a log that is small enough for one segment."""
    [segment] = directory.glob("*.jsonl")
    return [json.loads(line) for line in segment.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def wait_for_id(directory: Path, id: str) -> None:
    """Return when the event with this ID is in the log, which is not parsed meanwhile: that would slow down what is awaited."""

    def is_there() -> bool:
        [segment] = directory.glob("*.jsonl")
        _, found, rest = segment.read_bytes().rpartition(b'"%b"' % id.encode())
        return bool(found) and b"\n" in rest

    wait_until(is_there, f"event {id} in the log")


def verify(directory: Path) -> subprocess.CompletedProcess[str]:
    command = service_command("consumer", "verify", str(directory))
    return subprocess.run(command, env=environment("consumer", {}), capture_output=True, text=True, timeout=GUARD_SECONDS)


def assert_verifies_clean(directory: Path) -> None:
    verdict = verify(directory)
    assert verdict.returncode == 0, verdict.stdout + verdict.stderr


def publish(stack: Stack, topic: str) -> str:
    """Publish an event and return its ID."""
    answer = httpx.post(f"{stack.url}/topics/{topic}/events", json={"data": topic}, trust_env=False, timeout=30)
    return str(answer.raise_for_status().json()["id"])


def more_is_acknowledged(publisher: Publisher, count: int = 30) -> None:
    enough = publisher.count() + count
    wait_until(lambda: publisher.count() >= enough, f"{count} more acknowledged events")


@pytest.mark.parametrize("names", [[], ["producer"], ["gateway"], ["consumer"], ["consumer", "producer", "gateway"]], ids="+".join)
def test_log_has_every_acknowledged_event_once_when_services_are_killed(tmp_path: Path, names: list[str]) -> None:
    with run_stack(tmp_path, ALL_TOPICS, **QUICK) as stack:
        killed = [service for service in stack.services if service.name in names]
        with Publisher(stack.url, "orders.new") as new, Publisher(stack.url, "orders.paid") as paid:
            for _ in range(3):
                more_is_acknowledged(new)
                for service in killed:
                    service.kill()
                for service in killed:
                    service.start()
                for service in killed:
                    service.wait_until_ready()
            more_is_acknowledged(paid)
        for publisher in (new, paid):
            wait_for_id(stack.log_dir, publisher.acknowledged[-1][0])
    assert_log_has_each_event_once(read_log(stack.log_dir), [new, paid])
    assert_verifies_clean(stack.log_dir)


def lose_a_topic(stack: Stack, directory: Path) -> None:
    publish(stack, "doomed")
    httpx.delete(f"{stack.url}/topics/doomed", trust_env=False, timeout=30).raise_for_status()
    stack.gateway.kill()  # the gateway remembers the events that it passed on
    stack.gateway.start()
    stack.gateway.wait_until_ready()


def lose_the_log(stack: Stack, directory: Path) -> None:
    assert stack.producer.stop() == 0
    shutil.rmtree(directory / "producer")
    stack.producer.start()
    stack.producer.wait_until_ready()


@pytest.mark.parametrize(("lose", "reason"), [(lose_a_topic, "not-retained"), (lose_the_log, "unknown-epoch")])
def test_loss_while_the_consumer_is_down_is_a_gap_in_its_log(tmp_path: Path, lose: Callable[[Stack, Path], None], reason: str) -> None:
    with run_stack(tmp_path, ALL_TOPICS, **QUICK) as stack:
        before = [publish(stack, "kept") for _ in range(3)]
        wait_for_id(stack.log_dir, before[-1])
        stack.consumer.kill()
        lose(stack, tmp_path)
        after = [publish(stack, "kept") for _ in range(3)]
        stack.consumer.start()
        wait_for_id(stack.log_dir, after[-1])
    records = read_log(stack.log_dir)
    assert [record["id"] for record in records if "gap" not in record] == before + after
    [gap] = [record["gap"] for record in records if "gap" in record]
    assert gap["first_retained"] in (after[0], None), "None: the gateway, which follows too, resumed before anything was published again"
    assert gap == {"asked": before[-1], "first_retained": gap["first_retained"], "reason": reason}
    verdict = verify(stack.log_dir)
    assert verdict.returncode == 1
    assert re.search(rf"gap: asked {before[-1]}, .*\breason {reason}\b", verdict.stdout)


def test_log_of_a_text_that_resumes_is_complete_when_every_service_is_killed(tmp_path: Path) -> None:
    with run_stack(tmp_path, TEXT, **QUICK) as stack:
        for share in (0.3, 0.6):
            wait_for_id(stack.log_dir, str(int(share * LAST)))
            for service in stack.services:
                service.kill()
            for service in stack.services:
                service.start()
            for service in stack.services:
                service.wait_until_ready()
        wait_for_id(stack.log_dir, str(LAST))
    records = read_log(stack.log_dir)
    assert [record["id"] for record in records] == [str(number) for number in range(1, LAST + 1)]
    assert "".join(record["data"] for record in records) == DEMO_TEXT * REPEAT
    assert {record["type"] for record in records} == {"message"}
    assert_verifies_clean(stack.log_dir)
