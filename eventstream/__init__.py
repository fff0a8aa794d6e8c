"""The language that all three services speak: `text/event-stream` (HTML standard 9.2).

Bytes become whole event blocks (`Framer`), blocks become events (`Parser`), events become bytes (`encode`). The package needs only the
standard library and does no I/O. The exceptions are `eventstream.client`, with `eventstream.request`, which follows a stream over HTTP with
aiohttp, and `eventstream.decoding`. They are therefore imported by their own names.
"""

from .content_coding import content_codings
from .encoder import HEARTBEAT, HEARTBEAT_BLOCK, encode, encode_retry
from .errors import BlockTooLarge, ConnectionFailed, DecodedTooLarge, EventStreamError, Undecodable
from .framer import BYTE_ORDER_MARK, DEFAULT_MAX_BLOCK_BYTES, DEFAULT_MAX_BLOCK_LINES, Framer, count_blocks, split_blocks
from .parser import Event, Parser
from .reconnection import Reconnection

__all__ = [
    "BYTE_ORDER_MARK",
    "DEFAULT_MAX_BLOCK_BYTES",
    "DEFAULT_MAX_BLOCK_LINES",
    "HEARTBEAT",
    "HEARTBEAT_BLOCK",
    "BlockTooLarge",
    "ConnectionFailed",
    "DecodedTooLarge",
    "Event",
    "EventStreamError",
    "Framer",
    "Parser",
    "Reconnection",
    "Undecodable",
    "content_codings",
    "count_blocks",
    "encode",
    "encode_retry",
    "split_blocks",
]
