"""Build the event that ends a stream whose upstream was lost, on a route with `on_upstream_loss = "error-event"`."""

import json

from multidict import istr

UI_MESSAGES = istr("X-Vercel-AI-UI-Message-Stream")
"""Header field of a stream of the AI SDK's UI message chunks."""

_CODE = "upstream_lost"


def error_block(reason: str, *, ui_messages: bool = False) -> bytes:
    """Return the error event that ends a stream whose upstream was lost.

    One form serves the clients of all APIs. OpenAI's SDKs, the AI SDK's chat model and rig's look for a member `error` of the data,
    Anthropic's SDKs for the event type, clients of the Responses API for `type`, `message` and `sequence_number`. go-openai accepts
    only data that begins with `{"error":`, and misses it after an `event` line. There is no `status`: with one, rig takes the data for
    a whole response.

    A stream of UI messages gets a chunk with only the members that the AI SDK defines: many of its versions reject others.
    """
    message = f"Upstream lost: {reason}"
    if ui_messages:
        data: dict[str, object] = {"type": "error", "errorText": message}
    else:
        fault = {"message": message, "type": _CODE, "param": None, "code": _CODE}
        data = {"error": fault, "type": "error", "code": _CODE, "message": message, "param": None, "sequence_number": 0}
    return b"data: %b\nevent: error\n\n" % json.dumps(data).encode()
