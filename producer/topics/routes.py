"""Topics over HTTP."""

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from ..log.event_log import EventLog
from ..settings import Settings
from ..web.drain import Drain
from ..web.meters import Meters
from ..web.problems import Problem, answer_problem
from ..web.publish_keys import PublishKeys
from .event_bodies import Limits
from .feeds import Feeds
from .paths import EVENTS_PATH
from .publish_routes import PublishRoutes
from .publishing import Publisher
from .subscribe_routes import SubscribeRoutes
from .subscription import Subscriptions


class FastPublish:
    """ASGI middleware that calls `endpoint` directly for POST requests whose path begins with `prefix` and ends with `suffix`.

    The framework takes several times as long as publishing itself.
    The inner application has a route to the same endpoint. It still gets the requests of web pages, which have an `Origin`.
    Place it outside of all other middleware.
    """

    def __init__(self, app: ASGIApp, endpoint: Callable[[Request], Awaitable[Response]], prefix: str, suffix: str) -> None:
        self._app = app
        self._endpoint = endpoint
        self._prefix = prefix
        self._suffix = suffix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] != "http"
            or scope["method"] != "POST"
            or not scope["path"].endswith(self._suffix)
            or not scope["path"].startswith(self._prefix)
            or any(name == b"origin" for name, _ in scope["headers"])
        ):
            await self._app(scope, receive, send)
            return
        scope["http.route"] = f"{self._prefix}{{topic:path}}{self._suffix}"  # as the framework would set it
        try:
            response = await self._endpoint(Request(scope, receive))
        except Problem as problem:
            response = answer_problem(problem)
        await response(scope, receive, send)


def topic_routes(settings: Settings, meters: Meters, drain: Drain, log: EventLog, feeds: Feeds) -> tuple[APIRouter, Middleware]:
    """Return the routes that publish to the topics of `log` and subscribe to them, and the outermost middleware, for fast publishing."""
    router = APIRouter(tags=["topics"])
    limits = Limits(settings.max_event_bytes, settings.max_batch_events, settings.max_batch_bytes)
    drain.watch(feeds.wake_all)
    publisher = Publisher(log, meters, limits)
    keys = PublishKeys.parse(settings.publish_keys.get_secret_value())
    publishing = PublishRoutes(log, feeds, publisher, keys, drain, limits)
    publishing.add_to(router)
    subscriptions = Subscriptions(
        log,
        feeds,
        meters,
        drain,
        heartbeat_seconds=settings.heartbeat_seconds,
        send_timeout_seconds=settings.send_timeout_seconds,
        retry_ms=settings.topic_retry_ms,
    )
    SubscribeRoutes(log, subscriptions, settings.drain_seconds).add_to(router)
    prefix, _, suffix = EVENTS_PATH.partition("{topic:path}")
    return router, Middleware(FastPublish, endpoint=publishing.publish, prefix=prefix, suffix=suffix)
