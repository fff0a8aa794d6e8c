"""The producer as an ASGI application."""

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from service.tracing import Tracing

from .log.event_log import EventLog
from .settings import Settings
from .status import status_routes
from .text.routes import API_DESCRIPTION, stream_routes
from .topics.feeds import Feeds
from .topics.paths import TOPICS_PATH
from .topics.routes import topic_routes
from .web.drain import Drain
from .web.meters import Meters
from .web.middlewares import BodyLimit, HostCheck, Requests
from .web.problems import answer_with_problems

_LONGEST_ESCAPE = len(r"\ud83d\ude00")  # the most bytes that JSON needs for one character
_BODY_OVERHEAD_BYTES = 1024  # for `{"message": ""}` and generous white space


def create_app(settings: Settings, drain: Drain, log: EventLog, meters: Meters, tracing: Tracing | None = None) -> FastAPI:
    """Return the application. The caller begins `drain` to stop: then streams end and none is opened.

    Topics are kept in `log`, which the caller opens before and closes after.
    """
    app = FastAPI(title="Producer", version="1", description=API_DESCRIPTION, redirect_slashes=False)
    feeds = Feeds(log)
    topics, shortcut = topic_routes(settings, meters, drain, log, feeds)
    routers = [stream_routes(settings, meters, drain), topics, status_routes(meters, drain, log, feeds)]
    for router in routers:
        app.include_router(router)
    answer_with_problems(app, routers)
    app.add_middleware(BodyLimit, not_below=TOPICS_PATH, max_bytes=settings.max_message_chars * _LONGEST_ESCAPE + _BODY_OVERHEAD_BYTES)
    app.add_middleware(  # outermost, so that errors carry CORS headers too
        CORSMiddleware,
        allow_origins=settings.allowed_origins,
        allow_credentials=settings.credentials_allowed,
        allow_methods=["GET", "HEAD", "POST", "DELETE"],
        allow_headers=["*"],  # Authorization, Idempotency-Key and Last-Event-ID too; a preflight gets the headers it asks for
        expose_headers=["Location"],
    )
    app.user_middleware[:0] = [Middleware(Requests, meters=meters, tracing=tracing), Middleware(HostCheck), shortcut]
    return app
