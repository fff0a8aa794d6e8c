"""Decode an upstream's body, or split many small blocks, over several turns of the event loop."""

import asyncio
import itertools
from collections.abc import Callable, Iterator
from typing import Protocol

from eventstream import DecodedTooLarge, Undecodable
from eventstream.decoding import MEMBER_BYTES

_BYTES_PER_TURN = 64 * 1024  # the size of one read of an uncompressed body
_LINE_BYTES = 16  # a line's own cost: the shortest blocks have 3 bytes, and 64 KiB of them would hold up the loop for 50 ms
_MOST_LINES = 4096
_PIECE_BYTES = 8 * 1024


def has_many_lines(chunk: bytes) -> bool:
    """Whether handling the blocks of `chunk` takes more than one turn, because it has many lines."""
    return len(chunk) > _PIECE_BYTES and chunk.count(b"\n") + chunk.count(b"\r") > _MOST_LINES


class Parts(Protocol):
    """Split received bytes into parts. `eventstream.decoding.Decoder` implements it."""

    @property
    def whole(self) -> bool:
        """Whether the body may end here."""

    def decode(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the parts of `chunk`."""


class Pieces:
    """Split a body without content coding into small parts."""

    whole = True

    def decode(self, chunk: bytes) -> Iterator[bytes]:
        """Yield parts of 8 KiB."""
        for begin in range(0, len(chunk), _PIECE_BYTES):
            yield chunk[begin : begin + _PIECE_BYTES]


class Decoding:
    """The part of a body that is received but not yet decoded: a small chunk may decode to gigabytes.

    `take` gets each decoded part, and returns whether the next one may follow in this turn. If not, the caller must call `go_on`.
    `tired` is called when decoding continues in another turn, `rested` when it has finished there, and `failed` with the reason when the
    body cannot be decoded.
    """

    def __init__(
        self,
        decoder: Parts,
        take: Callable[[bytes], bool],
        *,
        tired: Callable[[], None],
        rested: Callable[[], None],
        failed: Callable[[str], None],
    ) -> None:
        self._decoder = decoder
        self._take = take
        self._tired = tired
        self._rested = rested
        self._failed = failed
        self._parts: Iterator[bytes] | None = None
        self._turn: asyncio.Handle | None = None

    def __repr__(self) -> str:
        return f"<Decoding {'pending' if self.is_pending else 'idle'}>"

    @property
    def is_pending(self) -> bool:
        """Whether there is more to decode."""
        return self._parts is not None

    @property
    def whole(self) -> bool:
        """Whether the body may end here."""
        return self._decoder.whole

    def feed(self, chunk: bytes) -> None:
        """Decode received bytes, as far as this turn allows."""
        parts = self._decoder.decode(chunk)
        if self._parts is None:
            self._parts = parts
            self._decode()
        else:
            self._parts = itertools.chain(self._parts, parts)

    def go_on(self) -> None:
        """Continue decoding, unless the next turn is already scheduled to."""
        if self._turn is None and self._parts is not None:
            self._decode_on()

    def stop(self) -> None:
        """Stop decoding and drop what is left."""
        self._parts = None
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None

    def _decode_on(self) -> None:
        self._turn = None
        self._decode()
        if self._parts is None:
            self._rested()

    def _decode(self) -> None:
        assert self._parts is not None
        left = _BYTES_PER_TURN
        try:
            for part in self._parts:
                if part and not self._take(part):
                    return
                left -= max(len(part), MEMBER_BYTES) + _LINE_BYTES * (part.count(b"\n") + part.count(b"\r"))
                if left <= 0:
                    self._turn = asyncio.get_running_loop().call_soon(self._decode_on)
                    self._tired()
                    return
        except (Undecodable, DecodedTooLarge) as error:
            self._failed(str(error))
        self._parts = None
