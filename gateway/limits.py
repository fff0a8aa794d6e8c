"""The limits of what clients may have, as the settings give them."""

import asyncio

from .body import Bodies
from .budget import Budget
from .clients.admission import Admission, OpenCounts
from .settings import Settings


def make_bodies(settings: Settings) -> Bodies:
    """Return what counts the bodies of requests."""
    limit = settings.max_held_body_bytes
    return Bodies(Budget(limit, settings.share_of(limit), unit="bytes of bodies"), settings.max_request_body_bytes)


def make_histories(settings: Settings) -> Budget:
    """Return what counts the histories of shared streams."""
    limit = settings.max_history_bytes
    return Budget(limit, settings.share_of(limit), unit="bytes of histories", later=asyncio.get_running_loop().call_soon)


def make_admission(settings: Settings, counts: OpenCounts | None) -> Admission:
    """Return what counts open requests and streams."""
    return Admission(
        settings.max_streams,
        settings.max_streams_per_client,
        counts,
        requests_per_second=settings.max_requests_per_second_per_client,
        bytes_per_second=settings.max_bytes_per_second_per_client,
    )
