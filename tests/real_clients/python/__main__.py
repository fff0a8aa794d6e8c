"""Run one Python client: `main.py CLIENT URL OPTIONS`. It prints events and its end as lines of JSON, as described in `clients.py`."""

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import requests
import sseclient
from httpx_sse import SSEError, connect_sse
from ld_eventsource import SSEClient
from ld_eventsource.actions import Event, Fault
from ld_eventsource.config import ConnectStrategy, ErrorStrategy
from ld_eventsource.errors import HTTPContentTypeError, HTTPStatusError

ACCEPT = {"Accept": "text/event-stream"}
FAILURES = (requests.RequestException, httpx.HTTPError, SSEError, HTTPStatusError, HTTPContentTypeError)


def say(**line: str) -> None:
    print(json.dumps(line), flush=True)


def with_sseclient_py(url: str, options: Mapping[str, Any]) -> str:
    method, headers = options.get("method", "GET"), ACCEPT | options.get("headers", {})
    with requests.request(method, url, data=options.get("body"), headers=headers, stream=True) as response:
        response.raise_for_status()
        for event in sseclient.SSEClient(response).events():
            say(id=event.id or "", type=event.event, data=event.data)
    return "the stream ended"


def with_httpx_sse(url: str, options: Mapping[str, Any]) -> str:
    method, headers, body = options.get("method", "GET"), options.get("headers", {}), options.get("body")
    with httpx.Client(timeout=None, trust_env=False) as client, connect_sse(client, method, url, headers=headers, content=body) as source:
        source.response.raise_for_status()
        for event in source.iter_sse():
            say(id=event.id, type=event.event, data=event.data)
    return "the stream ended"


def with_launchdarkly_eventsource(url: str, options: Mapping[str, Any]) -> str:
    client = SSEClient(
        ConnectStrategy.http(url, headers=options.get("headers", {})),
        initial_retry_delay=0.05,
        error_strategy=ErrorStrategy.from_lambda(lambda error: (isinstance(error, HTTPStatusError), None)),
    )
    with client:
        try:
            for action in client.all:
                if isinstance(action, Event):
                    say(id=action.id or "", type=action.event, data=action.data)
                elif isinstance(action, Fault):
                    say(lost=str(action.error))
        except HTTPStatusError as error:
            if error.status == 204:
                return "the server has no more"
            raise
    return "the stream ended"


CLIENTS: dict[str, Callable[[str, Mapping[str, Any]], str]] = {
    "sseclient-py": with_sseclient_py,
    "httpx-sse": with_httpx_sse,
    "launchdarkly-eventsource": with_launchdarkly_eventsource,
}

if __name__ == "__main__":
    _, name, address, given = sys.argv
    try:
        say(end=CLIENTS[name](address, json.loads(given)))
    except FAILURES as error:
        say(error=f"{type(error).__name__}: {error}")
