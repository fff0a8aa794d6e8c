"""Any sequence of crashes and restarts of any service under load: the consumer's log has every acknowledged event once, and is clean.

It runs for SOAK_SECONDS; with SOAK_SEED it repeats the actions of an earlier run.
"""

import json
import logging
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from consumer.segment import list_segments
from tests.kit.publishing import Publisher, assert_log_has_each_event_once
from tests.kit.stack import REPOSITORY, ServiceProcess, answers, clean_environment, run_stack
from tests.kit.waiting import wait_until

SECONDS = float(os.environ.get("SOAK_SECONDS", "10"))
SEED = int(os.environ.get("SOAK_SEED", random.randrange(2**32)))

pytestmark = [pytest.mark.soak, pytest.mark.timeout(SECONDS * 2 + 240)]
_log = logging.getLogger("soak")


def end(service: ServiceProcess, chance: random.Random) -> str:
    """Kill or stop the service, and return which."""
    if chance.random() < 0.6:
        service.kill()
        return "killed"
    wait_until(lambda: answers(service.status_url + "/livez"), f"{service.name} alive")  # a signal before that ends it like any process
    assert service.stop() == 0
    return "stopped"


def read_log(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for segment in list_segments(directory) for line in segment.lines() if line.endswith(b"\n")]


def test_log_is_complete_and_clean_after_any_sequence_of_restarts(tmp_path: Path) -> None:
    _log.info("seed %d, %.0f seconds", SEED, SECONDS)
    chance = random.Random(SEED)
    quick = {"PRODUCER_TOPIC_RETRY_MS": "100", "CONSUMER_RECONNECT_INITIAL_SECONDS": "0.1", "CONSUMER_RECONNECT_MAXIMUM_SECONDS": "0.5"}
    done: list[str] = []
    with run_stack(tmp_path, plain=True, **quick) as stack:
        with Publisher(stack.url, "orders.new", pause_seconds=0.01) as new, Publisher(stack.url, "orders.paid", pause_seconds=0.01) as paid:
            until = time.monotonic() + SECONDS
            while time.monotonic() < until:
                ended = chance.sample(stack.services, chance.choice((1, 1, 1, 2, 3)))
                done += [f"{service.name} {end(service, chance)}" for service in ended]
                time.sleep(chance.uniform(0, 0.5))  # nothing is awaited: this is how long it is down
                for service in ended:
                    service.start()
                for service in ended if chance.random() < 0.7 else ():  # else the next action comes while it is starting
                    service.wait_until_ready()
            for service in stack.services:
                service.wait_until_ready()
        newest = {publisher.acknowledged[-1][0] for publisher in (new, paid)}
        wait_until(lambda: newest <= {record["id"] for record in read_log(stack.log_dir)}, "the last events in the log", pause=0.5)
    _log.info("%s", ", ".join(done))
    _log.info("%d events, %d of them were sent again", new.count() + paid.count(), new.repetitions + paid.repetitions)
    assert_log_has_each_event_once(read_log(stack.log_dir), [new, paid])
    command = [sys.executable, "-m", "consumer", "verify", str(stack.log_dir)]
    verdict = subprocess.run(command, cwd=REPOSITORY, env=clean_environment(), capture_output=True, text=True, timeout=120)
    assert verdict.returncode == 0, verdict.stdout + verdict.stderr
