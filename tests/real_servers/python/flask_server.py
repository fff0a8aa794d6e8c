from flask import Flask, Response, request
from topics import REFUSAL, block, topics

app = Flask(__name__)


@app.route("/<server>/<mode>/events", methods=["GET", "POST"])
def events(server: str, mode: str) -> Response:
    query = request.args.to_dict()
    numbers = topics[query["key"]].numbers_in_thread(query, request.headers.get("Last-Event-ID"))
    return Response((block(number, query) for number in numbers), mimetype="text/event-stream")


@app.get("/<server>/<mode>/refusal")
def refusal(server: str, mode: str) -> Response:
    return Response(REFUSAL, 429, content_type="text/event-stream")


@app.get("/go")
def go() -> str:
    topics[request.args["key"]].go()
    return ""


@app.get("/state")
def state() -> dict[str, int]:
    return topics[request.args["key"]].state()
