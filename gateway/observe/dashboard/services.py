"""Watch the services around the gateway: readiness and a few metrics."""

import asyncio
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

_ASK_SECONDS = 2.0
_ANSWER_SECONDS = 1.5
_MOST_BYTES = 2**20
_MOST_FIGURES = 3


@dataclass(frozen=True, slots=True)
class Figure:
    """A metric that a service's card shows if the service has it: the sum of its samples."""

    metric: str
    label: str
    unit: str = ""
    """`bytes`, `seconds` or `yes`, empty for a count."""


FIGURES = (
    Figure("producer_streams_open", "streams"),
    Figure("producer_log_events", "events"),
    Figure("producer_log_bytes", "log", "bytes"),
    Figure("consumer_connected", "online", "yes"),
    Figure("consumer_durable_lines_total", "lines"),
    Figure("consumer_last_event_age_seconds", "last event", "seconds"),
    Figure("process_resident_memory_bytes", "memory", "bytes"),
)
"""Metrics in order of preference; a card shows the first that fit."""


class Services:
    """Poll each service's `/readyz` and `/metrics` every 2 s while `watch` runs. No service waits for another."""

    def __init__(self, urls: Mapping[str, str]) -> None:
        self._urls = urls
        self._states: dict[str, dict[str, Any]] = {name: _state(name, "unknown") for name in urls}

    def __repr__(self) -> str:
        return f"<Services {', '.join(self._urls)}>"

    @property
    def states(self) -> list[dict[str, Any]]:
        """State of each service, in the order of the setting."""
        return list(self._states.values())

    async def watch(self) -> None:
        """Poll until cancelled."""
        timeout = aiohttp.ClientTimeout(total=_ANSWER_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session, asyncio.TaskGroup() as group:
            for name, url in self._urls.items():
                group.create_task(self._watch(session, name, url))

    async def _watch(self, session: aiohttp.ClientSession, name: str, url: str) -> None:
        while True:
            self._states[name] = await _look_at(session, name, url)
            await asyncio.sleep(_ASK_SECONDS)


async def _look_at(session: aiohttp.ClientSession, name: str, url: str) -> dict[str, Any]:
    try:
        status, ready = await _get(session, f"{url}/readyz")
        _, metrics = await _get(session, f"{url}/metrics")
    except TimeoutError:
        return _state(name, "gone", f"no answer within {_ANSWER_SECONDS:g} s")
    except (aiohttp.ClientError, OSError) as error:
        return _state(name, "gone", _explain(error))
    figures = list(_figures(metrics))
    if status == 200:
        return _state(name, "ready", figures=figures)
    found = re.search(r'"(?:reason|detail)": ?"((?:[^"\\]|\\.)*)"', ready)
    return _state(name, "not ready", found[1][:200] if found else f"/readyz answers {status}", figures)


def _state(name: str, state: str, reason: str = "", figures: Iterable[dict[str, Any]] = ()) -> dict[str, Any]:
    return {"name": name, "state": state, "reason": reason, "figures": list(figures)}


async def _get(session: aiohttp.ClientSession, url: str) -> tuple[int, str]:
    async with session.get(url, allow_redirects=False) as answer:
        body = bytearray()
        async for part in answer.content.iter_any():
            body += part
            if len(body) > _MOST_BYTES:
                break
        return answer.status, body.decode("utf-8", "replace")


def _explain(error: Exception) -> str:
    number = error.os_error.errno if isinstance(error, aiohttp.ClientConnectorError) else None
    return f"does not answer: {os.strerror(number) if number is not None and number > 0 else type(error).__name__}"


def _figures(text: str) -> Iterator[dict[str, Any]]:
    """Yield the figures in a Prometheus text, none if the text is malformed."""
    sums: dict[str, float] = {}
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    except ValueError:
        return
    found = [figure for figure in FIGURES if math.isfinite(sums.get(figure.metric, math.nan))]
    for figure in found[:_MOST_FIGURES]:
        yield {"label": figure.label, "value": sums[figure.metric], "unit": figure.unit}
