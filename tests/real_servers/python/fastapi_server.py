from collections.abc import AsyncIterable

from fastapi import FastAPI, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from topics import REFUSAL, topics

app = FastAPI()


@app.api_route("/{server}/{mode}/events", methods=["GET", "POST"], response_class=EventSourceResponse)
async def events(request: Request) -> AsyncIterable[ServerSentEvent]:
    query = request.query_params
    async for number in topics[query["key"]].numbers(query, request.headers.get("last-event-id")):
        yield ServerSentEvent(id=str(number), raw_data=f"{number} {'x' * int(query['size'])}")


@app.get("/{server}/{mode}/refusal")
async def refusal() -> Response:
    return Response(REFUSAL, 429, media_type="text/event-stream")


@app.get("/go")
async def go(key: str) -> None:
    topics[key].go()


@app.get("/state")
async def state(key: str) -> dict[str, int]:
    return topics[key].state()
