"""Undo a content coding that a server applied to an event stream against the request's Accept-Encoding (RFC 9110 section 8.4).

brotli and zstd need packages; without them these codings are not readable.
"""

import importlib
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from .content_coding import content_codings
from .errors import DecodedTooLarge, Undecodable

PART_BYTES = 32 * 1024
"""The approximate size of the parts of decoded bytes: a small chunk cannot grow to gigabytes in memory."""
MEMBER_BYTES = 4 * 1024
"""The cost of starting another gzip member or zstd frame, in decoded bytes: an empty frame takes up to 50 µs."""

_INPUT_BYTES = 4 * 1024  # a decoder copies the rest of its input at the end of each member, and a member can have only 9 bytes
_LEAST_DECODED_BYTES = 16 * 1024 * 1024
_MOST_RATIO = 1000
_DECODED_BYTES_PER_SECOND = 1024 * 1024


def _optional(*names: str) -> Any:
    """Return the first of these modules that is installed, None without any."""
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


brotli, zstd = _optional("brotli"), _optional("compression.zstd", "backports.zstd")


class _Coding(Protocol):
    """Decodes the body of one content coding incrementally."""

    whole: bool

    def decode(self, piece: bytes) -> Iterator[bytes]:
        """Yield the decoded bytes of `piece`, in parts; an empty one where a member ends. Raises Undecodable."""


class _Zlib:
    """gzip and deflate (RFC 9110 section 8.4.1), with further gzip members, and deflate without a zlib header, as some send it."""

    def __init__(self) -> None:
        self._wbits = 0
        self._stream = zlib.decompressobj()
        self.whole = True

    def decode(self, piece: bytes) -> Iterator[bytes]:
        if not self._wbits:
            headed = piece[0] == 0x1F or piece[0] & 0x0F == 8
            self._wbits = zlib.MAX_WBITS | 32 if headed else -zlib.MAX_WBITS
            self._stream = zlib.decompressobj(self._wbits)
        while piece:
            try:
                part = self._stream.decompress(piece, PART_BYTES)
            except zlib.error as error:
                raise Undecodable(f"the body is not gzip or deflate: {error}") from error
            self.whole = self._stream.eof
            piece = self._stream.unconsumed_tail
            if self.whole:
                piece = self._stream.unused_data
                self._stream = zlib.decompressobj(self._wbits)
            if part or self.whole:
                yield part


class _Brotli:
    """br (RFC 7932)."""

    def __init__(self) -> None:
        self._stream = brotli.Decompressor()
        self.whole = True

    def decode(self, piece: bytes) -> Iterator[bytes]:
        self.whole = False
        try:
            while part := self._stream.process(piece, output_buffer_limit=PART_BYTES):
                yield part
                piece = b""  # only an empty result means that nothing is left, whatever can_accept_more_data() returns
            self.whole = self._stream.is_finished()
        except brotli.error as error:
            raise Undecodable(f"the body is not brotli: {error}") from error


class _Zstandard:
    """zstd (RFC 8878), concatenated frames included."""

    def __init__(self) -> None:
        self._stream = zstd.ZstdDecompressor()
        self.whole = True

    def decode(self, piece: bytes) -> Iterator[bytes]:
        while True:
            self.whole = self.whole and not piece
            try:
                part = self._stream.decompress(piece, PART_BYTES)
            except zstd.ZstdError as error:
                raise Undecodable(f"the body is not zstd: {error}") from error
            piece = b""
            if self._stream.eof:
                piece = self._stream.unused_data
                self._stream = zstd.ZstdDecompressor()
                self.whole = True
            if part or self.whole:
                yield part
            if not piece and self._stream.needs_input:
                return


class Decoder:
    """Decodes a body incrementally, and limits its decoded size.

    A body may always decode to 16 MiB and 1 MiB more for each second, and beyond that to a thousand times the received bytes. With each
    coding's best level, replayed history was measured to grow up to 230 times as gzip and 950 times as br or zstd. Only equal events and
    large snapshots that hardly change grow by more, and those come slowly. gzip and deflate cannot grow by more than 1032 times.
    """

    def __init__(self, coding: _Coding) -> None:
        self._coding = coding
        self._received = self._decoded = 0
        self._began = time.monotonic()

    @property
    def whole(self) -> bool:
        """Whether the body may end here: before its first byte, or after the coding's own end."""
        return self._coding.whole

    def decode(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the decoded bytes of `chunk`, in parts; an empty one where a member ends.

        Raises Undecodable if the bytes do not match `Content-Encoding`, and DecodedTooLarge if they exceed the limit.
        """
        for begin in range(0, len(chunk), _INPUT_BYTES):
            piece = chunk[begin : begin + _INPUT_BYTES]
            self._received += len(piece)
            for part in self._coding.decode(piece):
                self._decoded += len(part)
                if self._decoded > _LEAST_DECODED_BYTES and self._decoded > _MOST_RATIO * self._received:
                    self._bound()
                yield part

    def _bound(self) -> None:
        seconds = time.monotonic() - self._began
        limit = max(_MOST_RATIO * self._received, _LEAST_DECODED_BYTES + int(seconds * _DECODED_BYTES_PER_SECOND))
        if self._decoded > limit:
            raise DecodedTooLarge(self._received, self._decoded, limit)


_ALL: tuple[tuple[str, Callable[[], _Coding], Any], ...] = (
    ("gzip", _Zlib, zlib),
    ("x-gzip", _Zlib, zlib),
    ("deflate", _Zlib, zlib),
    ("br", _Brotli, brotli),
    ("zstd", _Zstandard, zstd),
)
_CODINGS = {name: coding for name, coding, library in _ALL if library is not None}

READABLE = ("identity", *_CODINGS)
"""The content codings that can be read here."""


def is_readable(content_encoding: str) -> bool:
    """Whether a body with this value of Content-Encoding is not encoded, or `find_decoder` has a decoder for it."""
    codings = content_codings(content_encoding)
    return not codings or (len(codings) == 1 and codings[0] in _CODINGS)


def find_decoder(content_encoding: str) -> Decoder | None:
    """Return a decoder for the value of a Content-Encoding header, None if it is not a single known coding."""
    codings = content_codings(content_encoding)
    return Decoder(_CODINGS[codings[0]]()) if codings and is_readable(content_encoding) else None
