"""Why the gateway answers a request with an error of its own."""

from typing import Literal, NamedTuple, TypeAlias, get_args

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
    "other-request",
    "upstream-unreachable",
    "upstream-timeout",
]
"""What `gateway_rejected_total` tells apart. A closed set: nothing that a client sends may make a series of its own."""

REASONS: frozenset[str] = frozenset(get_args(Reason))


class Refusal(NamedTuple):
    """An answer that is not what was asked for; `detail` is for the client to read."""

    status: int
    reason: Reason
    detail: str
