"""What reads foreign text takes time in proportion to its length, whatever is in it."""

import time
import timeit
from collections.abc import Callable

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from eventstream import HEARTBEAT, Framer, Parser
from gateway.observe.timeline import shown_path, without_secrets
from gateway.policy.cors import Cors
from gateway.policy.deletion import Deletion
from gateway.policy.paths import all_readings, split_path
from gateway.policy.target import readings, split_target
from gateway.policy.tokens import TokenRefused, read_head
from gateway.policy.trusted_proxies import TrustedProxies
from gateway.streams.heartbeats import without_heartbeats
from gateway.streams.stamping import has_data, read_id, read_ids, read_stamp, stamp
from service.request_ids import keep_or_make

SHORT_CHARS, TIMES = 1_000, 8
"""A text of 1,000 characters and one eight times as long: linear work takes 8 times as long, quadratic 64, cubic 512."""
MOST_RATIO = 32
LEAST_SECONDS = 0.002
"""What takes less for the long text cannot hold anybody up, and cannot be measured."""

_PROXIES = TrustedProxies.parse("127.0.0.1")
_CORS = Cors(origins=("https://*.example.com",))


def _token_head(text: str) -> None:
    try:
        read_head(text)
    except TokenRefused:
        return


def _client_of(field: str) -> Callable[[str], object]:
    return lambda text: _PROXIES.find_client("127.0.0.1", CIMultiDictProxy(CIMultiDict({field: text})))


READERS: dict[str, Callable[[str], object]] = {
    "message on the dashboard": without_secrets,
    "path on the dashboard": lambda text: shown_path("/" + text),
    "target": split_target,
    "path of a guarded route": lambda text: split_path("/" + text),
    "readings of a path": lambda text: list(readings("/" + text)),
    "all_readings of a path": lambda text: list(all_readings("/" + text)),
    "token": _token_head,
    "Forwarded": _client_of("Forwarded"),
    "X-Forwarded-For": _client_of("X-Forwarded-For"),
    "Origin": lambda text: _CORS.allows("https://" + text),
    "X-Request-Id": keep_or_make,
    "Last-Event-ID": read_stamp,
    "Cache-Group-Invalidation": lambda text: Deletion.done("http://upstream/", {"Cache-Group-Invalidation": text}),
    "framer": lambda text: Framer(2**20).feed(text.encode()),
    "parser": lambda text: Parser().feed(text.encode() + b"\n\n"),
    "block that gets an ID": lambda text: stamp(text.encode() + b"\n\n", "0" * 32, 1),
    "ID of a block": lambda text: read_id(text.encode() + b"\n\n"),
}

PIECES = (
    "/",
    "//",
    "/..",
    "\\",
    '"',
    '\\"',
    "%",
    "%2f",
    "%25",
    ";",
    ":",
    "=",
    ",",
    ".",
    "'",
    " ",
    "-",
    "a",
    "0",
    "?",
    "#",
    "\r",
    "\n",
    "a=",
)


def seconds(read: Callable[[str], object], text: str) -> float:
    """Return the CPU time of reading `text`."""
    began = time.thread_time()
    read(text)
    return time.thread_time() - began


def ratio(read: Callable[[str], object], begin: str, piece: str) -> float:
    """How many times as long the long text takes as the short one; 1 when it is too short to be measured."""
    short, long = (begin + piece * (chars // len(piece)) for chars in (SHORT_CHARS, SHORT_CHARS * TIMES))
    if seconds(read, long) < LEAST_SECONDS:
        return 1.0
    return min(seconds(read, long) for _ in range(3)) / min(seconds(read, short) for _ in range(3))


@pytest.mark.parametrize("name", READERS)
def test_eight_times_the_text_takes_eight_times_as_long(name: str) -> None:
    slow = {
        (begin, piece): found for begin in ("", *PIECES) for piece in PIECES if (found := ratio(READERS[name], begin, piece)) > MOST_RATIO
    }
    assert slow == {}


@pytest.mark.parametrize("begin", [b"id: 1\ndata: ", b"id: 1\rdata: ", b"event: e\ndata: ", b": "])
@pytest.mark.parametrize("read", [read_ids, has_data, lambda block: stamp(block, "0" * 32, 1)], ids=["read_ids", "has_data", "stamp"])
def test_one_large_block_is_searched_faster_than_its_bytes_are_replaced(begin: bytes, read: Callable[[bytes], object]) -> None:
    block = begin + b"m" * 2**20 + b"\n\n"

    def least(work: Callable[[], object]) -> float:
        return min(timeit.repeat(work, number=1, repeat=5))

    assert least(lambda: read(block)) < least(lambda: block.replace(b"m", b"n"))


def test_a_hundred_thousand_heartbeats_ahead_of_a_block_take_eight_times_as_long_as_an_eighth() -> None:
    def least(count: int) -> float:
        block = HEARTBEAT * count + b"data: 1\n\n"
        assert without_heartbeats(block) == b"data: 1\n\n"
        return min(timeit.repeat(lambda: without_heartbeats(block), number=1, repeat=3))

    assert least(100_000) < MOST_RATIO * least(100_000 // TIMES)
