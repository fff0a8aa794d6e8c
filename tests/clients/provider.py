"""A language model's server: the streaming APIs of OpenAI and Anthropic, with answers that a test can delay or cut."""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from tests.kit.upstream import EVENT_STREAM_HEAD, LAST_CHUNK, Asked, Disconnect, Script, ScriptedUpstream, Step, chunk

TOKENS = ("Der", " Strom", " reißt", ",\n\n", "data:", " 世", "界", " 🌊", "\r\n", "id: 7\n", "bleibt", " ganz", ".")
INPUT_TOKENS = 11
KEY = "key-of-a-test"

Piece = tuple[str, bytes]
"""The text that an event block adds, and the block."""


class Model:
    """A model with one answer, and the calls that it received."""

    def __init__(self, name: str, tokens: Sequence[str], interlude: Sequence[Step], prelude: Sequence[Step]) -> None:
        self.name = name
        self.response_id = f"resp_{name}"
        self.tokens = tokens
        self.interlude = interlude
        self.prelude = prelude
        self.calls: list[Asked] = []
        self.called = asyncio.Event()
        self.text = "".join(tokens)
        self.first_half = "".join(tokens[: len(tokens) // 2])
        """The text before the interlude."""

    def play(self, pieces: Iterator[Piece], head: bytes = EVENT_STREAM_HEAD) -> Script:
        """Return the steps of the answer: each block in two HTTP chunks, and the interlude in the middle of the text."""
        steps: list[Step] = [*self.prelude, head]
        said, pending = "", list(self.interlude)
        for text, block in pieces:
            said += text
            steps += [chunk(block[: len(block) // 2]), chunk(block[len(block) // 2 :])]
            if pending and said == self.first_half:
                steps += pending
                if isinstance(pending[-1], Disconnect):
                    return steps
                pending = []
        return [*steps, LAST_CHUNK]


class Provider:
    """The server. A request names its model, and must be one that the real API answers with a stream."""

    def __init__(self) -> None:
        self._models: dict[str, Model] = {}
        self.refused: list[str] = []
        """The method and path of each request for something else than a stream."""
        self._server = ScriptedUpstream(self._answer)

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        self.url = self._server.url
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._server.__aexit__(kind, error, trace)

    def model(self, *interlude: Step, tokens: Sequence[str] = TOKENS, prelude: Sequence[Step] = ()) -> Model:
        """Return a new model that answers with `tokens`.

        `prelude` comes before the head, `interlude` after half of the tokens. A Disconnect ends the answer.
        """
        model = Model(f"model-{len(self._models)}", tokens, interlude, prelude)
        self._models[model.name] = model
        return model

    def _answer(self, asked: Asked) -> Script:
        path = asked.target[asked.target.find("/v1/") :]
        api = _APIS.get(path)
        body = json.loads(asked.body or b"{}")
        if asked.method != "POST" or api is None:
            self.refused.append(f"{asked.method} {asked.target}")
            return _refusal(404, f"{asked.method} {asked.target} is unknown, known are POST {', '.join(_APIS)}")
        credentials = asked.header("Authorization") or asked.header("X-Api-Key")
        if credentials not in (f"Bearer {KEY}", KEY):
            return _refusal(401, f"got {credentials!r} for a key, it must be {KEY!r}")
        if body.get("stream") is not True or body.get("model") not in self._models:
            return _refusal(400, f"stream and model are {body.get('stream')!r} and {body.get('model')!r}: not a stream of a model here")
        model = self._models[body["model"]]
        model.calls.append(asked)
        model.called.set()
        return model.play(api(model), _UI_HEAD if api is _ui_messages else EVENT_STREAM_HEAD)


def _refusal(status: int, message: str) -> Script:
    body = json.dumps({"error": {"message": message, "type": "invalid_request_error"}}).encode()
    return [b"HTTP/1.1 %d No\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)]


def _block(data: Mapping[str, Any], kind: str = "") -> bytes:
    """Return an event block as both APIs write it, text unescaped."""
    head = f"event: {kind}\n" if kind else ""
    return f"{head}data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def _chat_completion(model: Model) -> Iterator[Piece]:
    """Return the blocks of `POST /v1/chat/completions`, with the usage that `stream_options` requests."""
    common = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model.name}

    def choice(delta: Mapping[str, str], finish: str | None = None) -> bytes:
        return _block(common | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], "usage": None})

    yield "", choice({"role": "assistant", "content": ""})
    for token in model.tokens:
        yield token, choice({"content": token})
    yield "", choice({}, "stop")
    said = len(model.tokens)
    usage = {"prompt_tokens": INPUT_TOKENS, "completion_tokens": said, "total_tokens": INPUT_TOKENS + said}
    yield "", _block(common | {"choices": [], "usage": usage})
    yield "", b"data: [DONE]\n\n"


def _response(model: Model) -> Iterator[Piece]:
    """Return the blocks of `POST /v1/responses`."""
    numbers = iter(range(1_000_000))
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
    whole_part = part | {"text": model.text}
    whole_item = item | {"status": "completed", "content": [whole_part]}
    said = len(model.tokens)
    usage = {"input_tokens": INPUT_TOKENS, "output_tokens": said, "total_tokens": INPUT_TOKENS + said}
    usage |= {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}  # type: ignore[dict-item]
    response = {"id": model.response_id, "object": "response", "created_at": 1, "model": model.name, "status": "in_progress", "output": []}
    response |= {"parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "error": None}

    def event(kind: str, **members: object) -> bytes:
        return _block({"type": kind, "sequence_number": next(numbers)} | members, kind)

    yield "", event("response.created", response=response)
    yield "", event("response.in_progress", response=response)
    yield "", event("response.output_item.added", output_index=0, item=item)
    yield "", event("response.content_part.added", **place, part=part)
    for token in model.tokens:
        yield token, event("response.output_text.delta", **place, delta=token, logprobs=[])
    yield "", event("response.output_text.done", **place, text=model.text, logprobs=[])
    yield "", event("response.content_part.done", **place, part=whole_part)
    yield "", event("response.output_item.done", output_index=0, item=whole_item)
    yield "", event("response.completed", response=response | {"status": "completed", "output": [whole_item], "usage": usage})


def _message(model: Model) -> Iterator[Piece]:
    """Return the blocks of `POST /v1/messages`, with a ping before every third token."""

    def event(kind: str, **members: object) -> bytes:
        return _block({"type": kind} | members, kind)

    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": model.name, "content": []}
    message |= {"stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": INPUT_TOKENS, "output_tokens": 1}}  # type: ignore[dict-item]
    yield "", event("message_start", message=message)
    yield "", event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    for number, token in enumerate(model.tokens):
        if number % 3 == 0:
            yield "", event("ping")
        yield token, event("content_block_delta", index=0, delta={"type": "text_delta", "text": token})
    yield "", event("content_block_stop", index=0)
    yield "", event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": len(model.tokens)})
    yield "", event("message_stop")


_UI_HEAD = EVENT_STREAM_HEAD.replace(b"\r\n\r\n", b"\r\nX-Vercel-AI-UI-Message-Stream: v1\r\n\r\n")


def _ui_messages(model: Model) -> Iterator[Piece]:
    """Return the blocks that a server with the AI SDK sends to its page."""
    yield "", _block({"type": "start", "messageId": "msg_1"})
    yield "", _block({"type": "text-start", "id": "1"})
    for token in model.tokens:
        yield token, _block({"type": "text-delta", "id": "1", "delta": token})
    yield "", _block({"type": "text-end", "id": "1"})
    yield "", _block({"type": "finish"})
    yield "", b"data: [DONE]\n\n"


_APIS: dict[str, Callable[[Model], Iterator[Piece]]] = {
    "/v1/chat/completions": _chat_completion,
    "/v1/responses": _response,
    "/v1/messages": _message,
    "/v1/ui": _ui_messages,
}
