"""Subscribe over HTTP, show events and list topics."""

from functools import partial
from heapq import nsmallest
from http import HTTPStatus
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from eventstream import Parser

from ..log.event_log import EventLog, LogError, Topic, format_event_id, parse_event_id
from ..web.problems import Problem, describe_value
from ..web.responses import EVENT_STREAM, STREAM_HEADERS, respond_by_sse_starlette
from .descriptions import EVENT, LIST, SUBSCRIBE, SUBSCRIBE_SEVERAL, ListedTopic, StoredEvent, TopicPage
from .names import Patterns
from .paths import EVENT_PATH, EVENTS_PATH, SEVERAL_TOPICS, TOPICS_PATH, read_segment, read_topic
from .selection import SubscribeParameters, read_parameters, read_patterns, select
from .subscription import Subscriptions

SEVERAL_PATH = "/events"
_ONE = "GET /topics/{topic}/events"
_MOST_LISTED = 1000


class SubscribeRoutes:
    """The routes of readers: subscribe, show one event, list topics."""

    def __init__(self, log: EventLog, subscriptions: Subscriptions, drain_seconds: float) -> None:
        self._log = log
        self._subscriptions = subscriptions
        timeout = subscriptions.send_timeout_seconds
        self._respond = partial(respond_by_sse_starlette, drain_seconds=drain_seconds, send_timeout_seconds=timeout)

    def __repr__(self) -> str:
        return f"<SubscribeRoutes {self._subscriptions.feeds!r}>"

    def add_to(self, router: APIRouter) -> None:
        """Add `GET /topics/{topic}/events`, `GET /events`, `GET /topics/{topic}/events/{event_id}` and `GET /topics`."""
        for path, endpoint, description in (
            (EVENTS_PATH, self.subscribe, SUBSCRIBE),
            (SEVERAL_PATH, self.subscribe_several, SUBSCRIBE_SEVERAL),
        ):
            router.add_api_route(path, endpoint, methods=["GET"], response_class=Response, **description)
            router.add_api_route(path, endpoint, methods=["HEAD"], response_class=Response, include_in_schema=False)
        router.add_api_route(EVENT_PATH, self.show_event, methods=["GET"], **EVENT)
        router.add_api_route(TOPICS_PATH, self.list_topics, methods=["GET"], **LIST)

    async def subscribe(self, request: Request, parameters: Annotated[SubscribeParameters, Depends(read_parameters)]) -> Response:
        """Stream the events of the topics that the path's pattern matches."""
        patterns = read_patterns([read_segment(request, EVENTS_PATH)], "path")
        return await self._open(request, patterns, parameters, _ONE)

    async def subscribe_several(
        self,
        request: Request,
        parameters: Annotated[SubscribeParameters, Depends(read_parameters)],
        topic: Annotated[list[str] | None, Query(description="A topic or a pattern; repeat it for several.")] = None,
    ) -> Response:
        """Stream the events of all topics that one of the patterns matches."""
        return await self._open(request, read_patterns(topic or [], "query"), parameters, "GET /events")

    async def show_event(self, request: Request, event_id: str) -> StoredEvent:
        """Return one event as JSON. Raises Problem: 404 when the topic never had this id, 410 when the event is gone."""
        topic = read_topic(request, EVENT_PATH)
        found = parse_event_id(event_id)
        if found is None or found[0] != self._log.epoch or not 0 < found[1] <= self._log.last:
            raise Problem(
                HTTPStatus.NOT_FOUND, f"{describe_value(event_id)!r} is not the id of an event of this log", got=describe_value(event_id)
            )
        try:
            stored = await self._log.get(found[1])
        except LogError as error:
            raise _cannot_read(error) from None
        known = self._log.topics.get(topic)
        if stored is None and known is not None and found[1] <= known.gone_through:
            raise Problem(HTTPStatus.GONE, "the event is no longer retained, or belongs to another topic that no longer has it")
        if stored is None or stored.topic != topic:
            raise Problem(HTTPStatus.NOT_FOUND, f"topic {topic} has no event {event_id}")
        [event] = Parser().feed(stored.block)
        event_type = event.type if b"\nevent: " in stored.block else None
        return StoredEvent(id=event_id, topic=topic, type=event_type, data=event.data, retry=event.retry)

    async def list_topics(
        self,
        after: Annotated[str, Query(description="Start after the topic of this name.")] = "",
        limit: Annotated[int, Query(ge=1, le=_MOST_LISTED, description="The largest number of topics.")] = 100,
    ) -> TopicPage:
        """Return a page of the topics that have events, sorted by name, with the URL of the next page."""
        names = nsmallest(limit + 1, (topic.name for topic in self._log.topics.values() if topic.count and topic.name > after))
        try:
            topics = [await self._describe(self._log.topics[name]) for name in names[:limit] if name in self._log.topics]
        except LogError as error:
            raise _cannot_read(error) from None
        following = f"{TOPICS_PATH}?{urlencode({'after': names[limit - 1], 'limit': limit})}" if len(names) > limit else None
        return TopicPage(topics=topics, next=following)

    async def _describe(self, topic: Topic) -> ListedTopic:
        first = await self._log.first([topic.name])
        return ListedTopic(
            topic=topic.name,
            count=topic.count,
            first_id=format_event_id(self._log.epoch, first) if first else None,
            last_id=format_event_id(self._log.epoch, topic.last) if topic.last else None,
            bytes=topic.bytes,
            subscribers=self._subscriptions.feeds.subscribers(topic.name),
        )

    async def _open(self, request: Request, patterns: Patterns, parameters: SubscribeParameters, route: str) -> Response:
        self._subscriptions.drain.refuse()
        try:
            selection = await select(self._log, patterns, parameters)
            if not parameters.follow and parameters.last_event_id and not await self._subscriptions.has_anything(selection):
                return Response(status_code=HTTPStatus.NO_CONTENT, headers={"Cache-Control": "no-store"})
        except LogError as error:
            raise _cannot_read(error) from None
        if request.method == "HEAD":
            response = Response(headers=STREAM_HEADERS, media_type=EVENT_STREAM)
        else:
            response = self._respond(self._subscriptions.send(selection, route, request.scope.get("state", {})))
        if not (route == _ONE and patterns.topics):  # else a DELETE of the topic invalidates the path below it
            response.headers["Cache-Groups"] = SEVERAL_TOPICS
        return response


def _cannot_read(error: LogError) -> Problem:
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, f"the event log cannot be read: {error}", headers={"Retry-After": "5"})
