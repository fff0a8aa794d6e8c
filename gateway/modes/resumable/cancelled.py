"""The answer to a request that cancels a response of the OpenAI Responses API."""

import asyncio
import json
from typing import Any

from eventstream import Parser

from .kept_stream import KeptStream
from .store import STOPPED


async def response_object(id: str, stream: KeptStream | None) -> bytes:
    """Return the response object, as JSON, as far as the events of its stream show it. Of a stream that was stopped it is `cancelled`."""
    response: dict[str, Any] = {"id": id, "object": "response", "status": "cancelled"}
    items: dict[int, Any] = {}
    cursor = 0
    history = stream.fan_out.history if stream is not None else None
    while history is not None and cursor < history.end:
        blocks, cursor = history.copy(cursor, history.end)
        for event in Parser().feed(blocks):
            data = _object(event.data)
            if isinstance(data.get("response"), dict):
                response = data["response"]
            if data.get("type") == "response.output_item.done" and isinstance(data.get("output_index"), int):
                items[data["output_index"]] = data.get("item")
        await asyncio.sleep(0)  # let other events proceed
    if stream is not None and stream.state == STOPPED:
        response = response | {"output": [items[index] for index in sorted(items)], "status": "cancelled"}
    return json.dumps(response).encode()


def _object(data: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
