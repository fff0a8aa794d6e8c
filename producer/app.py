"""The producer as an ASGI application."""

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from .body_limit import BodyLimit
from .descriptions import API_DESCRIPTION
from .drain import Drain
from .meters import Meters
from .problems import answer_with_problems
from .routes import stream_routes
from .settings import Settings
from .status import status_routes

_LONGEST_ESCAPE = len(r"\ud83d\ude00")  # the most bytes that JSON needs for one character
_BODY_OVERHEAD_BYTES = 1024  # for `{"message": ""}` and generous white space


def create_app(settings: Settings, drain: Drain | None = None) -> FastAPI:
    """Gives the application. Who runs it begins `drain` when the process shall stop: then streams end and none is opened."""
    drain = drain or Drain()
    meters = Meters()
    app = FastAPI(title="Producer", version="1", description=API_DESCRIPTION, redirect_slashes=False)
    answer_with_problems(app)
    app.include_router(stream_routes(settings, meters, drain))
    app.include_router(status_routes(meters, drain))
    app.add_middleware(BodyLimit, max_bytes=settings.max_message_chars * _LONGEST_ESCAPE + _BODY_OVERHEAD_BYTES)
    app.add_middleware(  # added last, so it is outermost: errors carry CORS headers too
        CORSMiddleware,
        allow_origins=settings.allowed_origins,
        allow_credentials=settings.credentials_allowed,
        allow_methods=["GET", "HEAD", "POST"],
        allow_headers=["*"],
    )
    return app
