"""Publish over HTTP, and drop topics."""

import re
from http import HTTPStatus

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from starlette.requests import ClientDisconnect

from ..log.event_log import Appended, EventLog, LogError, format_event_id
from ..web.drain import Drain
from ..web.problems import Problem, describe_value, refuse_field
from ..web.publish_keys import PublishKeys
from .descriptions import DROP, PUBLISH, DroppedTopic
from .event_bodies import Limits, RefusedEvent, decode_json, encode_array, encode_event, encode_text
from .feeds import Feeds
from .paths import EVENTS_PATH, SEVERAL_TOPICS, TOPIC_PATH, read_topic
from .publishing import Published, Publisher

_JSON = "application/json"
_TEXT = "text/plain"
_LINES = ("application/x-ndjson", "application/ndjson")
_UTF8 = ("", "utf-8", "utf8", "us-ascii")
_KEY = re.compile(r"[\x20-\x7e]{1,255}")


class PublishRoutes:
    """The routes of publishers: publish to a topic, and drop one."""

    def __init__(self, log: EventLog, feeds: Feeds, publisher: Publisher, keys: PublishKeys, drain: Drain, limits: Limits) -> None:
        self._log = log
        self._feeds = feeds
        self._publisher = publisher
        self._keys = keys
        self._drain = drain
        self._limits = limits

    def __repr__(self) -> str:
        return f"<PublishRoutes {self._limits!r} {self._keys!r}>"

    def add_to(self, router: APIRouter) -> None:
        """Add `POST /topics/{topic}/events` and `DELETE /topics/{topic}`."""
        router.add_api_route(EVENTS_PATH, self.publish, methods=["POST"], response_class=Response, **PUBLISH)
        router.add_api_route(TOPIC_PATH, self.drop, methods=["DELETE"], **DROP)

    async def publish(self, request: Request) -> Response:
        """Store one event or several, and answer when they are durable. Raises Problem."""
        self._admit(request)
        topic = read_topic(request)
        key = _read_key(request)
        kind = _read_media_type(request)
        try:
            if kind in _LINES:
                return self._answer_batch(await self._publisher.publish_lines(topic, request.stream(), key))
            body = await _read_body(request, self._limits.event_bytes if kind == _TEXT else self._limits.batch_bytes)
        except ClientDisconnect:
            return Response(status_code=HTTPStatus.BAD_REQUEST)  # the client has left
        try:
            value = body if kind == _TEXT else decode_json(body)
            if isinstance(value, list):
                published = Published()
                published.add(await self._publisher.publish(topic, encode_array(value, self._limits), key))
                return self._answer_batch(published)
            block = encode_text(body, self._limits) if kind == _TEXT else encode_event(value, self._limits)
        except RefusedEvent as error:
            raise error.problem() from None
        return self._answer_one(topic, await self._publisher.publish(topic, [block], key))

    async def drop(self, request: Request, response: Response) -> DroppedTopic:
        """Remove a topic with all its events. Raises Problem."""
        self._admit(request)
        topic = read_topic(request, TOPIC_PATH)
        known = self._log.topics.get(topic)
        if known is None or not known.count:
            raise Problem(HTTPStatus.NOT_FOUND, f"there is no topic {topic}; GET /topics lists what there is")
        try:
            dropped = await self._log.drop(topic)
        except LogError as error:
            raise self._publisher.fail(error) from None
        finally:
            self._feeds.forget(topic)
        response.headers["Cache-Group-Invalidation"] = SEVERAL_TOPICS
        return DroppedTopic(topic=topic, dropped=dropped)

    def _admit(self, request: Request) -> None:
        self._keys.check(request.headers.get("authorization"))
        self._drain.refuse()

    def _answer_one(self, topic: str, appended: Appended) -> Response:
        event_id = format_event_id(self._log.epoch, appended.first)
        status = HTTPStatus.OK if appended.repeated else HTTPStatus.CREATED
        headers = {"Location": f"/topics/{topic}/events/{event_id}"}
        return Response(f'{{"id":"{event_id}"}}', status, headers, _JSON)

    def _answer_batch(self, published: Published) -> Response:
        status = HTTPStatus.OK if published.repeated else HTTPStatus.CREATED
        return JSONResponse(published.describe(self._log.epoch), status)


def _read_key(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not _KEY.fullmatch(key):
        raise refuse_field("header", "Idempotency-Key", "must have 1 to 255 printable ASCII characters", got=describe_value(key))
    return key


def _read_media_type(request: Request) -> str:
    """Return the media type of a body that can be read. Raises Problem (415)."""
    sent = request.headers.get("content-type", "")
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    allowed = [_JSON, _TEXT, _LINES[0]]
    if coding != "identity":
        detail = f"Content-Encoding must be identity, got {coding[:50]!r}; send the body uncompressed"
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail, headers={"Accept-Encoding": "identity"}, got=coding[:50], allowed="identity"
        )
    if sent == _JSON:
        return sent
    name, _, parameters = sent.lower().partition(";")
    kind = name.strip()
    charset = re.search(r"(?:^|;)\s*charset\s*=\s*\"?([^\s\";]*)", parameters)
    if kind not in (_JSON, _TEXT, *_LINES) or (charset and charset[1] not in _UTF8):
        got = describe_value(sent) if sent else "no Content-Type"
        detail = f"Content-Type is {got}, allowed are {', '.join(allowed)}, in UTF-8"
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail, headers={"Accept-Post": ", ".join(allowed)}, got=got, allowed=allowed)
    return kind


async def _read_body(request: Request, limit: int) -> bytes:
    """Return the body. Raises Problem (413) as soon as it is known to be longer than `limit`, ClientDisconnect."""
    announced = int(request.headers.get("content-length", "0"))  # the server has parsed it already: digits only
    if announced > limit:
        raise _too_large(announced, limit)
    parts = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise _too_large(size, limit)
        parts.append(part)
    return b"".join(parts)


def _too_large(size: int, limit: int) -> Problem:
    detail = f"the body has {size} bytes or more, allowed are {limit}; more events can be sent as application/x-ndjson"
    return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail, got=size, allowed=limit)
