"""The limits of what clients may have, as the settings give them and the system allows."""

import asyncio

import structlog

from ..access.admission import Admission, OpenCounts
from ..access.budget import Budget
from ..access.descriptors import Descriptors
from ..modes.body import Bodies
from ..policy.settings import Settings

log = structlog.get_logger()


def make_bodies(settings: Settings) -> Bodies:
    """Return what counts the bodies of requests."""
    limit = settings.max_held_body_bytes
    return Bodies(Budget(limit, settings.share_of(limit), unit="bytes of bodies"), settings.max_request_body_bytes)


def make_histories(settings: Settings) -> Budget:
    """Return what counts the histories of shared streams."""
    limit = settings.max_history_bytes
    return Budget(limit, settings.share_of(limit), unit="bytes of histories", later=asyncio.get_running_loop().call_soon)


def make_admission(settings: Settings, counts: OpenCounts | None, descriptors: Descriptors) -> Admission:
    """Return what counts requests. Each has a connection, so there can be no more of them than descriptors; clients get less alike."""
    most, most_per_client = settings.max_streams, settings.max_streams_per_client
    fitting = descriptors.for_connections * settings.workers
    if fitting < most:
        most, most_per_client = fitting, max(1, most_per_client * fitting // most)
    needed = 2 * settings.max_streams // settings.workers
    if descriptors.limit < needed:
        log.warning(
            "few file descriptors: raise the limit (ulimit -Hn, LimitNOFILE) or lower GATEWAY_MAX_STREAMS",
            limit=descriptors.limit,
            needed=needed,
            max_streams=most,
            max_streams_per_client=most_per_client,
        )
    return Admission(
        most,
        most_per_client,
        counts,
        requests_per_second=settings.max_requests_per_second_per_client,
        bytes_per_second=settings.max_bytes_per_second_per_client,
    )
