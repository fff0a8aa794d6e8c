"""Make calls of libraries that resume.

Each line of the input is one: `{"number", "library", "does", "url", …}`; the output carries its number.
"""

import asyncio
import inspect
import json
import sys
import warnings
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

THREADS = 32  # a blocking client holds one for the time of its call
Say = Callable[..., None]


async def done(call: Callable[[], Any]) -> Any:
    """Return the result of a call of an asynchronous client, or of a blocking one, which runs in a thread."""
    result = await asyncio.to_thread(call)
    return await result if inspect.isawaitable(result) else result


async def each(stream: Any) -> AsyncIterator[Any]:
    """Yield the events of a stream of either kind."""
    if hasattr(stream, "__aiter__"):
        async for event in stream:
            yield event
        return
    events = iter(stream)
    while (event := await asyncio.to_thread(next, events, None)) is not None:
        yield event


def openai(*, is_async: bool) -> Callable[..., Any]:
    async def call(say: Say, url: str, key: str, does: str, **options: Any) -> str:
        import openai

        http: Any = openai.DefaultAsyncHttpxClient(trust_env=False) if is_async else openai.DefaultHttpxClient(trust_env=False)
        client: Any = (openai.AsyncOpenAI if is_async else openai.OpenAI)(base_url=url + "/v1", api_key=key, http_client=http)
        responses = client.responses

        async def show(stream: Any) -> None:
            async for event in each(stream):
                say(id=str(event.sequence_number), type=event.type, data=getattr(event, "delta", ""))

        after = {"starting_after": options["after"]} if options.get("after") is not None else {}
        match does:
            case "cancel":
                return str((await done(lambda: responses.cancel(options["id"]))).to_json())
            case "object":
                return str((await done(lambda: responses.retrieve(options["id"]))).to_json())
            case "helper":
                manager = responses.stream(response_id=options["id"], **after)
                stream = await done(manager.__aenter__ if is_async else manager.__enter__)
                await show(stream)
                response = await done(stream.get_final_response)
                return f"{response.status}: {response.output_text}"
            case "create":
                await show(await done(lambda: responses.create(model=options["model"], input="?", stream=True)))
            case "retrieve":
                await show(await done(lambda: responses.retrieve(options["id"], stream=True, **after)))
        return "the stream ended"

    return call


def langgraph(*, is_async: bool) -> Callable[..., Any]:
    async def call(say: Say, url: str, key: str, does: str, **options: Any) -> str:
        from langgraph_sdk import get_client, get_sync_client

        runs: Any = (get_client if is_async else get_sync_client)(url=url, api_key=key).runs
        created: list[str] = []
        if does == "stream":
            asked = {"input": {}, "stream_mode": "values", "on_run_created": lambda run: created.append(run["run_id"])}
            stream = runs.stream(options["thread"], options["assistant"], **asked)
        else:
            stream = runs.join_stream(options["thread"], options["run"], stream_mode=options.get("mode"))
        async for part in each(stream):
            say(id=part.id or "", type=part.event, data=json.dumps(part.data))
        return ",".join(created)

    return call


async def mcp(say: Say, url: str, tool: str, to: int, mode: Any = "legacy") -> str:
    import httpx2
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client

    async def show(progress: float, total: float | None, message: str | None) -> None:
        say(id=f"{progress:g}", type="progress", data=message)

    async with (
        httpx2.AsyncClient(trust_env=False, timeout=httpx2.Timeout(30, read=300)) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        result: Any = await client.call_tool(tool, {"to": to}, progress_callback=show)
        return str(result.content[0].text)


LIBRARIES = {
    "openai": openai(is_async=False),
    "openai async": openai(is_async=True),
    "langgraph": langgraph(is_async=False),
    "langgraph async": langgraph(is_async=True),
    "mcp": mcp,
}


async def serve(number: int, library: str, **asked: Any) -> None:
    def say(**line: Any) -> None:
        sys.stdout.write(json.dumps({"number": number, **line}) + "\n")
        sys.stdout.flush()

    try:
        say(end=await LIBRARIES[library](say, **asked))
    except Exception as error:  # noqa: BLE001  # the test says which one it expects
        say(error=f"{type(error).__name__}: {error}")


async def main() -> None:
    warnings.simplefilter("ignore")
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
    calls: set[asyncio.Task[None]] = set()
    while line := await asyncio.to_thread(sys.stdin.readline):
        call = asyncio.create_task(serve(**json.loads(line)))
        calls.add(call)
        call.add_done_callback(calls.discard)


if __name__ == "__main__":
    asyncio.run(main())
