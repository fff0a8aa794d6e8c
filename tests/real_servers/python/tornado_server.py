import asyncio
import os
import ssl

from topics import REFUSAL, block, topics
from tornado.web import Application, RequestHandler


class Events(RequestHandler):
    sending: "asyncio.Task[None] | None" = None

    async def get(self) -> None:
        self.set_header("Content-Type", "text/event-stream")
        self.sending = asyncio.create_task(self.send())
        await asyncio.wait([self.sending])

    post = get

    async def send(self) -> None:
        query = {name: self.get_query_argument(name) for name in self.request.query_arguments}
        async for number in topics[query["key"]].numbers(query, self.request.headers.get("Last-Event-ID")):
            self.write(block(number, query))
            await self.flush()

    def on_connection_close(self) -> None:
        if self.sending:
            self.sending.cancel()


class Refusal(RequestHandler):
    def get(self) -> None:
        self.set_status(429)
        self.set_header("Content-Type", "text/event-stream")
        self.write(REFUSAL)


class Go(RequestHandler):
    def get(self) -> None:
        topics[self.get_query_argument("key")].go()


class State(RequestHandler):
    def get(self) -> None:
        self.write(topics[self.get_query_argument("key")].state())


async def main() -> None:
    app = Application([("/.*/.*/events", Events), ("/.*/.*/refusal", Refusal), ("/go", Go), ("/state", State)])
    context = None
    if certificate := os.environ.get("CERTIFICATE"):
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, os.environ["KEY"])
    app.listen(int(os.environ["PORT"]), "127.0.0.1", ssl_options=context)
    await asyncio.Event().wait()


asyncio.run(main())
