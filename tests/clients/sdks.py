"""Stream one completion with each SDK of OpenAI and Anthropic."""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import anthropic
import httpx2
import openai
from anthropic import Anthropic, AsyncAnthropic
from openai import AsyncOpenAI, OpenAI

from tests.clients.provider import INPUT_TOKENS, KEY, Model
from tests.kit.waiting import GUARD_SECONDS

PROMPT = "Was macht der Strom?"
LOST = (openai.APIConnectionError, anthropic.APIConnectionError, httpx2.TransportError)
"""Errors that the SDKs raise when the connection breaks. Anthropic's passes on its HTTP client's error."""
TOLD = (openai.APIError, anthropic.APIStatusError)
"""Errors that the SDKs raise when an event reports a failed answer."""


@dataclass(frozen=True)
class Outcome:
    """An SDK's result of a completed answer."""

    text: str
    ending: str | None
    input_tokens: int
    output_tokens: int


class Heard:
    """The text that a client has received so far, token by token. Any thread may add to it."""

    def __init__(self) -> None:
        self.text = ""

    def add(self, token: str) -> None:
        self.text += token


Client = Callable[[str, str, Heard, Mapping[str, str]], Awaitable[Outcome]]
"""Requests a completion of a model, by name, at a URL with further header fields. Returns the SDK's result or raises its error."""


class Talk:
    """A completion in progress."""

    def __init__(self, client: str, url: str, model: str, fields: Mapping[str, str] | None = None) -> None:
        self._heard = Heard()
        self._asking = asyncio.ensure_future(CLIENTS[client](url, model, self._heard, fields or {}))

    @property
    def heard(self) -> str:
        """The text that the client has received so far."""
        return self._heard.text

    async def hears(self, text: str) -> None:
        """Wait until the client has received exactly this text."""
        async with asyncio.timeout(GUARD_SECONDS):
            while self.heard != text and not self._asking.done():
                await asyncio.sleep(0.005)
        if self.heard != text:
            raise AssertionError(f"the client ended when it had heard {self.heard!r}: {await self._asking}")

    async def outcome(self) -> Outcome:
        """Return the SDK's result, or raise its error."""
        async with asyncio.timeout(GUARD_SECONDS):
            return await self._asking


_Blocking = Callable[[str, str, Heard, Mapping[str, str]], Outcome]


def _in_thread(ask: _Blocking) -> Client:
    @functools.wraps(ask)
    def client(url: str, model: str, heard: Heard, fields: Mapping[str, str]) -> Awaitable[Outcome]:
        return asyncio.to_thread(ask, url, model, heard, fields)

    return client


def _openai(url: str) -> OpenAI:
    return OpenAI(base_url=url + "/v1", api_key=KEY, http_client=openai.DefaultHttpxClient(trust_env=False))


def _async_openai(url: str) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=url + "/v1", api_key=KEY, http_client=openai.DefaultAsyncHttpxClient(trust_env=False))


def _chat(url: str, model: str, heard: Heard, fields: Mapping[str, str]) -> Outcome:
    with (
        _openai(url) as client,
        client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": PROMPT}],
            stream=True,
            stream_options={"include_usage": True},
            extra_headers=fields,
        ) as stream,
    ):
        text, ending, usage = "", None, None
        for chunk in stream:
            for choice in chunk.choices:
                heard.add(choice.delta.content or "")
                text, ending = text + (choice.delta.content or ""), choice.finish_reason or ending
            usage = chunk.usage or usage
    return Outcome(text, ending, usage.prompt_tokens, usage.completion_tokens) if usage else Outcome(text, ending, 0, 0)


async def _async_chat(url: str, model: str, heard: Heard, fields: Mapping[str, str]) -> Outcome:
    async with (
        _async_openai(url) as client,
        client.chat.completions.stream(
            model=model,
            messages=[{"role": "user", "content": PROMPT}],
            stream_options={"include_usage": True},
            extra_headers=fields,
        ) as stream,
    ):
        async for event in stream:
            if event.type == "content.delta":
                heard.add(event.delta)
        completion = await stream.get_final_completion()
    [choice] = completion.choices
    assert completion.usage
    text = choice.message.content or ""
    return Outcome(text, choice.finish_reason, completion.usage.prompt_tokens, completion.usage.completion_tokens)


def _responses(url: str, model: str, heard: Heard, fields: Mapping[str, str]) -> Outcome:
    with _openai(url) as client, client.responses.stream(model=model, input=PROMPT, extra_headers=fields) as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                heard.add(event.delta)
        response = stream.get_final_response()
    assert response.usage
    return Outcome(response.output_text, response.status, response.usage.input_tokens, response.usage.output_tokens)


async def _async_responses(url: str, model: str, heard: Heard, fields: Mapping[str, str]) -> Outcome:
    async with _async_openai(url) as client, client.responses.stream(model=model, input=PROMPT, extra_headers=fields) as stream:
        async for event in stream:
            if event.type == "response.output_text.delta":
                heard.add(event.delta)
        response = await stream.get_final_response()
    assert response.usage
    return Outcome(response.output_text, response.status, response.usage.input_tokens, response.usage.output_tokens)


def _messages(url: str, model: str, heard: Heard, fields: Mapping[str, str]) -> Outcome:
    with (
        Anthropic(base_url=url, api_key=KEY, http_client=anthropic.DefaultHttpxClient(trust_env=False)) as client,
        client.messages.stream(model=model, max_tokens=100, messages=[{"role": "user", "content": PROMPT}], extra_headers=fields) as stream,
    ):
        for text in stream.text_stream:
            heard.add(text)
        message = stream.get_final_message()
        said = stream.get_final_text()
    return Outcome(said, message.stop_reason, message.usage.input_tokens, message.usage.output_tokens)


async def _async_messages(url: str, model: str, heard: Heard, fields: Mapping[str, str]) -> Outcome:
    async with (
        AsyncAnthropic(base_url=url, api_key=KEY, http_client=anthropic.DefaultAsyncHttpxClient(trust_env=False)) as client,
        client.messages.stream(model=model, max_tokens=100, messages=[{"role": "user", "content": PROMPT}], extra_headers=fields) as stream,
    ):
        async for text in stream.text_stream:
            heard.add(text)
        message = await stream.get_final_message()
        said = await stream.get_final_text()
    return Outcome(said, message.stop_reason, message.usage.input_tokens, message.usage.output_tokens)


CLIENTS: dict[str, Client] = {
    "OpenAI chat": _in_thread(_chat),
    "AsyncOpenAI chat": _async_chat,
    "OpenAI responses": _in_thread(_responses),
    "AsyncOpenAI responses": _async_responses,
    "Anthropic messages": _in_thread(_messages),
    "AsyncAnthropic messages": _async_messages,
}
_ENDINGS = {"chat": "stop", "responses": "completed", "messages": "end_turn"}


def whole(client: str, model: Model) -> Outcome:
    """Return the expected result of the model's complete answer."""
    return Outcome(model.text, _ENDINGS[client.split()[1]], INPUT_TOKENS, len(model.tokens))
