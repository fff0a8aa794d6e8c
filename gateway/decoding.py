"""Undoes a content coding that an upstream applied to an event stream although it was asked not to."""

import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

import brotli

from eventstream import content_codings

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_PART_BYTES = 64 * 1024  # decoded bytes are handed on in parts, so that a small chunk cannot grow to gigabytes in memory


class UndecodableError(ValueError):
    """The bytes are not what Content-Encoding says."""


class Decoder(Protocol):
    """Decodes a body incrementally."""

    @property
    def whole(self) -> bool:
        """Whether the body may end here: nothing has come, or the coding's own end."""

    def decode(self, chunk: bytes) -> Iterator[bytes]:
        """Gives what `chunk` makes decodable, in parts. Raises UndecodableError."""


class _Zlib:
    """gzip and deflate (RFC 9110 section 8.4.1), with further gzip members, and deflate without a zlib header, as some send it."""

    def __init__(self) -> None:
        self._wbits = 0
        self._stream = zlib.decompressobj()
        self.whole = True

    def decode(self, chunk: bytes) -> Iterator[bytes]:
        if chunk and not self._wbits:
            headed = chunk[0] == 0x1F or chunk[0] & 0x0F == 8
            self._wbits = zlib.MAX_WBITS | 32 if headed else -zlib.MAX_WBITS
            self._stream = zlib.decompressobj(self._wbits)
        while chunk:
            try:
                part = self._stream.decompress(chunk, _PART_BYTES)
            except zlib.error as error:
                raise UndecodableError(f"upstream's body is not gzip or deflate: {error}") from error
            self.whole = self._stream.eof
            if part:
                yield part
            chunk = self._stream.unconsumed_tail
            if self.whole:
                chunk = self._stream.unused_data
                self._stream = zlib.decompressobj(self._wbits)


class _Brotli:
    """br (RFC 7932)."""

    def __init__(self) -> None:
        self._stream = brotli.Decompressor()
        self.whole = True

    def decode(self, chunk: bytes) -> Iterator[bytes]:
        self.whole = self.whole and not chunk
        try:
            while part := self._stream.process(chunk, output_buffer_limit=_PART_BYTES // 2):  # it overshoots by a buffer
                yield part
                chunk = b""  # only when it gives nothing is there nothing left, whatever can_accept_more_data() says
            self.whole = self.whole or self._stream.is_finished()
        except brotli.error as error:
            raise UndecodableError(f"upstream's body is not brotli: {error}") from error


class _Zstandard:
    """zstd (RFC 8878), concatenated frames included."""

    def __init__(self) -> None:
        self._stream = zstd.ZstdDecompressor()
        self.whole = True

    def decode(self, chunk: bytes) -> Iterator[bytes]:
        while True:
            self.whole = self.whole and not chunk
            try:
                part = self._stream.decompress(chunk, _PART_BYTES)
            except zstd.ZstdError as error:
                raise UndecodableError(f"upstream's body is not zstd: {error}") from error
            if part:
                yield part
            chunk = b""
            if self._stream.eof:
                chunk = self._stream.unused_data
                self._stream = zstd.ZstdDecompressor()
                self.whole = True
            if not chunk and self._stream.needs_input:
                return


_DECODERS: dict[str, Callable[[], Decoder]] = {"gzip": _Zlib, "x-gzip": _Zlib, "deflate": _Zlib, "br": _Brotli, "zstd": _Zstandard}


def is_readable(content_encoding: str) -> bool:
    """Whether a body with this value of Content-Encoding is not coded at all, or `find_decoder` has a decoder for it."""
    codings = content_codings(content_encoding)
    return not codings or (len(codings) == 1 and codings[0] in _DECODERS)


def find_decoder(content_encoding: str) -> Decoder | None:
    """Return a decoder for the value of a Content-Encoding header, None if it is not a single known coding."""
    codings = content_codings(content_encoding)
    return _DECODERS[codings[0]]() if codings and is_readable(content_encoding) else None
