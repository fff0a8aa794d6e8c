"""The language that all three services speak: `text/event-stream` (HTML standard 9.2).

Bytes become whole event blocks (`Framer`), blocks become events (`Parser`), events become bytes (`encode`). The package needs only the
standard library and does no I/O. The exception is `eventstream.client`, with `eventstream.request`: it follows a stream over HTTP with
aiohttp, and is therefore imported by its own name.
"""

from .content_coding import content_codings
from .encoder import HEARTBEAT, HEARTBEAT_BLOCK, encode, encode_retry
from .errors import BlockTooLarge, ConnectionFailed, EventStreamError
from .framer import BYTE_ORDER_MARK, DEFAULT_MAX_BLOCK_BYTES, Framer, count_blocks, split_blocks
from .parser import Event, Parser
from .reconnection import Reconnection

__all__ = [
    "BYTE_ORDER_MARK",
    "DEFAULT_MAX_BLOCK_BYTES",
    "HEARTBEAT",
    "HEARTBEAT_BLOCK",
    "BlockTooLarge",
    "ConnectionFailed",
    "Event",
    "EventStreamError",
    "Framer",
    "Parser",
    "Reconnection",
    "content_codings",
    "count_blocks",
    "encode",
    "encode_retry",
    "split_blocks",
]
