"""A publisher that retries until each event is acknowledged, and a check of the log that took them in."""

import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol, Self

import httpx

RETRY_SECONDS = 0.05
ANSWER_SECONDS = 60.0
"""The most seconds that a publisher waits for one answer, and until an event is acknowledged."""


class Acknowledged(Protocol):
    """A publisher, as the check of a log sees it."""

    acknowledged: list[tuple[str, str]]
    """ID and data of each event, in order."""


class Publisher:
    """Publishes numbered events to a topic, one after the other, until the block ends; each one is retried until it is acknowledged.

    Each event has an idempotency key of its own, so that a repetition must not store it twice. Leaving the block waits for the event in
    progress: then the topic has exactly the `acknowledged` events. Raises AssertionError there for any answer that is neither an
    acknowledgement nor a passing failure.
    """

    def __init__(self, url: str, topic: str, *, key: str = "", pause_seconds: float = 0.002) -> None:
        self.acknowledged: list[tuple[str, str]] = []
        """ID and data of each event, in order."""
        self.repetitions = 0
        """The number of events stored by a request whose answer was lost."""
        self._url = f"{url}/topics/{topic}/events"
        self._topic = topic
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._pause_seconds = pause_seconds
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"publisher of {topic}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stopping.set()
        if error is None:  # after another error, its own would hide the cause
            self.stop()

    def stop(self) -> None:
        """Stop before the end of the block."""
        self._stopping.set()
        self._thread.join(2 * ANSWER_SECONDS)
        assert not self._thread.is_alive(), f"the publisher of {self._topic} hangs"
        self.check()

    def check(self) -> None:
        """Raise AssertionError when it had to give up."""
        if self._failure is not None:
            raise AssertionError(f"the publisher of {self._topic} gave up") from self._failure

    def count(self) -> int:
        """Return the number of acknowledged events. Raises AssertionError when it had to give up."""
        self.check()
        return len(self.acknowledged)

    def _run(self) -> None:
        try:
            with httpx.Client(trust_env=False, timeout=ANSWER_SECONDS) as http:
                while not self._stopping.wait(self._pause_seconds):
                    data = f"{self._topic} {len(self.acknowledged) + 1}"
                    self.acknowledged.append((self._publish(http, data), data))
        except BaseException as error:  # of a thread: raised where the block ends
            self._failure = error
            if not isinstance(error, Exception):
                raise

    def _publish(self, http: httpx.Client, data: str) -> str:
        headers = {**self._headers, "Idempotency-Key": data.replace(" ", "-")}
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            try:
                answer = http.post(self._url, json={"data": data}, headers=headers)
            except httpx.TransportError as error:
                failure = repr(error)
            else:
                if answer.status_code in (200, 201):
                    self.repetitions += answer.status_code == 200
                    return str(answer.json()["id"])
                failure = f"{answer.status_code} {answer.text}"
                assert answer.status_code >= 500, failure
            assert time.monotonic() < deadline, f"{data!r} is not acknowledged after {ANSWER_SECONDS} s: {failure}"
            time.sleep(RETRY_SECONDS)


def assert_log_has_each_event_once(
    records: Sequence[dict[str, Any]], publishers: Sequence[Acknowledged], others: tuple[str, ...] = ()
) -> None:
    """Check a consumer's log of all topics: it has the acknowledged events, each once and in order, and every ID of the producer's log
    from the first on. Data of other events must begin with one of `others`."""
    acknowledged = [event for publisher in publishers for event in publisher.acknowledged]
    expected = dict(acknowledged)
    assert len(expected) == len(acknowledged), "two events got one ID"
    epoch = records[0]["id"].partition("-")[0]
    assert [record["id"] for record in records] == [f"{epoch}-{offset}" for offset in range(1, len(records) + 1)]
    assert {record["id"]: record["data"] for record in records if record["id"] in expected} == expected
    assert [record for record in records if record["id"] not in expected and not record["data"].startswith(others)] == []
    for publisher in publishers:
        offsets = [int(id.partition("-")[2]) for id, _ in publisher.acknowledged]
        assert offsets == sorted(offsets)
