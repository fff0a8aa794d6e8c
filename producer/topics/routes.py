"""Topics over HTTP."""

from fastapi import APIRouter
from starlette.middleware import Middleware

from ..log.event_log import EventLog
from ..settings import Settings
from ..web.drain import Drain
from ..web.meters import Meters
from ..web.publish_keys import PublishKeys
from .event_bodies import Limits
from .fast_publish import FastPublish
from .feeds import Feeds
from .paths import EVENTS_PATH
from .publish_routes import PublishRoutes
from .publishing import Publisher
from .subscribe_routes import SubscribeRoutes
from .subscription import Subscriptions


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
