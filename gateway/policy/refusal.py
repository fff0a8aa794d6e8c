"""Reasons for which the gateway itself answers a request with an error."""

from typing import Literal, NamedTuple, TypeAlias

Reason: TypeAlias = Literal[
    "malformed",
    "target",
    "no-route",
    "method",
    "query",
    "head",
    "body",
    "draining",
    "overload",
    "client-streams",
    "client-rate",
    "client-share",
    "unauthenticated",
    "forbidden",
    "origin",
    "expired",
    "keys",
    "unknown-event",
    "no-stream",
    "stream-gone",
    "store",
    "other-request",
    "upstream-unreachable",
    "upstream-timeout",
]
"""Labels of `gateway_rejected_total`. A closed set, so that clients cannot create series."""


class Refusal(NamedTuple):
    """An error answer. `detail` is for the client."""

    status: int
    reason: Reason
    detail: str
