"""A chat service with an AI SDK stream. It does nothing for reloads: the gateway in front of it keeps each answer.

No language model is behind it. It answers with a fixed text, word by word.
"""

import asyncio
import json
import os
import re
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

from fastapi import Cookie, FastAPI
from fastapi.responses import FileResponse, RedirectResponse, StreamingResponse
from pydantic import BaseModel, Field

SECONDS_PER_WORD = float(os.environ.get("SECONDS_PER_WORD", "0.15"))
ANSWER = """You asked: “{question}”

This answer comes word by word, as from a language model, and takes about twenty seconds. Try to lose it.

Reload the page now: the text so far is back at once, and the rest follows. Open the same address in a second tab: both show it. Cut \
the network: the service goes on, and the page gets what it missed as soon as it is online again. Restart the gateway: it waits for this \
answer first. Press Stop: the service stops too, and keeps what it has.

All the while this service is asked once. It has no Redis, no table of active streams and no code for any of this. It only saves your \
question before it answers, and the answer at its end."""

Message = dict[str, Any]
Session = Annotated[str, Cookie(alias="session", min_length=1)]

app = FastAPI()
here = Path(__file__).parent
chats: dict[tuple[str, str], list[Message]] = defaultdict(list)
"""The messages by session and chat. A real service has a database here."""


class Question(BaseModel):
    """What the AI SDK posts: the chat, and its messages as far as the page knows them."""

    id: str
    messages: list[Message] = Field(min_length=1)


@app.get("/")
async def open_new_chat() -> RedirectResponse:
    """Redirect to a chat of its own, so that a reload and a second tab have the same address."""
    return RedirectResponse(f"/chats/{secrets.token_urlsafe(9)}")


@app.get("/chats/{chat}")
async def page(chat: str, session: Annotated[str, Cookie()] = "") -> FileResponse:
    """Return the page, and start a session if there is none."""
    response = FileResponse(here / "page.html")
    if not session:
        response.set_cookie("session", secrets.token_urlsafe(), httponly=True, samesite="lax")
    return response


@app.get("/page.js")
async def script() -> FileResponse:
    """Return the bundle of page.jsx, which the image has built."""
    return FileResponse(here / "page.js")


@app.get("/chats/{chat}/messages")
async def history(chat: str, session: Session) -> list[Message]:
    """Return the saved messages of a chat."""
    return chats[session, chat]


@app.post("/api/chat")
async def ask(question: Question, session: Session) -> StreamingResponse:
    """Save the question, which is not part of the stream, then answer it."""
    messages = chats[session, question.id]
    messages.append(question.messages[-1])
    return StreamingResponse(answer(messages), media_type="text/event-stream", headers={"x-vercel-ai-ui-message-stream": "v1"})


async def answer(messages: list[Message]) -> AsyncIterator[str]:
    """Yield the answer as events of the AI SDK's UI message stream, and save it: whole, or what there is when it is stopped."""
    message: Message = {"id": f"answer-{secrets.token_hex(8)}", "role": "assistant", "parts": [{"type": "text", "text": ""}]}
    try:
        yield event(type="start", messageId=message["id"])  # with this ID a replay replaces the saved message
        yield event(type="text-start", id="text")
        for word in re.findall(r"\S+\s*", ANSWER.format(question=text_of(messages[-1]))):
            await asyncio.sleep(SECONDS_PER_WORD)
            message["parts"][0]["text"] += word
            yield event(type="text-delta", id="text", delta=word)
        yield event(type="text-end", id="text")
    finally:
        messages.append(message)
    yield event(type="finish")
    yield "data: [DONE]\n\n"


def text_of(message: Message) -> str:
    """Return the text of a message."""
    return "".join(part["text"] for part in message["parts"] if part["type"] == "text")


def event(**data: str) -> str:
    """Return one event of the stream."""
    return f"data: {json.dumps(data)}\n\n"
