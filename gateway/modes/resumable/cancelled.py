"""The answer to a request that cancels a response of the OpenAI Responses API."""

import asyncio
import json
from typing import Any

from eventstream import Parser

from ...streams.history import History


async def cancelled_response(id: str, history: History | None) -> bytes:
    """Return the response object, as JSON, as far as the events of its stream show it. Its status is `cancelled`."""
    response: dict[str, Any] = {"id": id, "object": "response"}
    items: dict[int, Any] = {}
    cursor = 0
    while history is not None and cursor < history.end:
        blocks, cursor = history.copy(cursor, history.end)
        for event in Parser().feed(blocks):
            data = _object(event.data)
            if isinstance(data.get("response"), dict):
                response = data["response"]
            if data.get("type") == "response.output_item.done" and isinstance(data.get("output_index"), int):
                items[data["output_index"]] = data.get("item")
        await asyncio.sleep(0)  # let other events proceed
    output = [items[index] for index in sorted(items)]
    return json.dumps({**response, "output": output or response.get("output", []), "status": "cancelled"}).encode()


def _object(data: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
