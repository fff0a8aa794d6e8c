"""Content codings that an upstream applied against the request's Accept-Encoding."""

import gzip
import itertools
import random
import sys
import zlib
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import brotli
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventstream import DecodedTooLarge, Undecodable
from eventstream.decoding import PART_BYTES, Decoder, _optional, find_decoder

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MOST_BYTES = 100_000
"""The brotli library stops after its limit, not before it, and returns up to 98,272 bytes."""


def raw_deflate(plain: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(plain) + compressor.flush()


def cut_in_two(encode: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """Return an encoder that encodes each half by itself."""
    return lambda plain: encode(plain[: len(plain) // 2]) + encode(plain[len(plain) // 2 :])


CODINGS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "several gzip members": ("gzip", cut_in_two(gzip.compress)),
    "x-gzip": ("x-gzip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "deflate without its header": ("deflate", raw_deflate),
    "br": ("br", lambda plain: bytes(brotli.compress(plain, quality=5))),
    "zstd": ("zstd", zstd.compress),
    "several zstd frames": ("zstd", cut_in_two(zstd.compress)),
}
CODED = pytest.mark.parametrize(("coding", "encode"), CODINGS.values(), ids=CODINGS)

STREAM = b"".join(b"id: %d\ndata: %s\n\n" % (number, b"%x" % hash((number, number)) * (number % 7)) for number in range(500))


def decoder_for(coding: str) -> Decoder:
    decoder = find_decoder(coding)
    assert decoder is not None
    return decoder


def decode(coding: str, chunks: list[bytes]) -> list[bytes]:
    decoder = decoder_for(coding)
    return [part for chunk in chunks for part in decoder.decode(chunk) if part]


@CODED
def test_body_in_one_chunk_is_decoded(coding: str, encode: Callable[[bytes], bytes]) -> None:
    assert b"".join(decode(coding, [encode(STREAM)])) == STREAM


@CODED
def test_body_byte_by_byte_is_decoded(coding: str, encode: Callable[[bytes], bytes]) -> None:
    coded = encode(STREAM)
    assert b"".join(decode(coding, [coded[at : at + 1] for at in range(len(coded))])) == STREAM


@CODED
def test_empty_body_and_empty_chunks_decode_to_nothing(coding: str, encode: Callable[[bytes], bytes]) -> None:
    assert decode(coding, [b"", encode(b""), b""]) == []


@pytest.mark.parametrize(("coding", "encode"), [("gzip", gzip.compress), ("deflate", raw_deflate), ("zstd", zstd.compress)])
def test_part_is_empty_where_a_member_ends_so_that_members_without_content_can_be_counted(
    coding: str, encode: Callable[[bytes], bytes]
) -> None:
    assert list(decoder_for(coding).decode(encode(b"") * 1000)) == [b""] * 1000


def test_missing_library_is_none() -> None:
    assert _optional("no_such_library", "nor_this") is None


@CODED
@settings(max_examples=50)
@given(plain=st.binary(max_size=2000), cuts=st.lists(st.integers(0, 4000), max_size=8))
def test_body_cut_anywhere_is_decoded(coding: str, encode: Callable[[bytes], bytes], plain: bytes, cuts: list[int]) -> None:
    coded = encode(plain)
    places = sorted({0, len(coded), *(cut % (len(coded) + 1) for cut in cuts)})
    assert b"".join(decode(coding, [coded[begin:end] for begin, end in itertools.pairwise(places)])) == plain


@CODED
@pytest.mark.parametrize("chunk_bytes", [1000, 2**20])
def test_bomb_comes_in_bounded_parts(coding: str, encode: Callable[[bytes], bytes], chunk_bytes: int) -> None:
    size = 15 * 2**20
    coded = encode(bytes(size))
    assert len(coded) < size / 500
    decoder = decoder_for(coding)
    got = 0
    for at in range(0, len(coded), chunk_bytes):
        for part in decoder.decode(coded[at : at + chunk_bytes]):
            assert len(part) <= MOST_BYTES
            got += len(part)
    assert got == size


@CODED
def test_large_body_that_hardly_compresses_is_decoded(coding: str, encode: Callable[[bytes], bytes]) -> None:
    plain = random.Random(7).randbytes(300_000) + b"abc" * 100_000 + random.Random(8).randbytes(300_000)
    coded = encode(plain)
    parts = decode(coding, [coded[at : at + 65_536] for at in range(0, len(coded), 65_536)])
    assert b"".join(parts) == plain
    assert max(map(len, parts)) <= MOST_BYTES


def zlib_pieces(pieces: list[bytes], wbits: int) -> list[bytes]:
    compressor = zlib.compressobj(wbits=wbits)
    return [compressor.compress(piece) + compressor.flush(zlib.Z_SYNC_FLUSH) for piece in pieces]


def brotli_pieces(pieces: list[bytes]) -> list[bytes]:
    compressor = brotli.Compressor(quality=5)
    return [bytes(compressor.process(piece) + compressor.flush()) for piece in pieces]


def zstd_pieces(pieces: list[bytes]) -> list[bytes]:
    compressor = zstd.ZstdCompressor()
    return [compressor.compress(piece, zstd.ZstdCompressor.FLUSH_BLOCK) for piece in pieces]


FLUSHES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "gzip": partial(zlib_pieces, wbits=31),
    "deflate": partial(zlib_pieces, wbits=zlib.MAX_WBITS),
    "br": brotli_pieces,
    "zstd": zstd_pieces,
}
"""Encoders of pieces, each of which can be decoded when it has come."""


@pytest.mark.parametrize("coding", FLUSHES)
@pytest.mark.parametrize("size", [1, 200, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES])
def test_data_that_the_upstream_flushed_is_decoded_at_once(coding: str, size: int) -> None:
    pieces = [b"x" * size, random.Random(size).randbytes(size), b"y" * size]
    decoder = decoder_for(coding)
    for piece, coded in zip(pieces, FLUSHES[coding](pieces), strict=True):
        assert b"".join(decoder.decode(coded)) == piece


GARBAGE = b"data: this is not coded at all\n\n" * 10


@pytest.mark.parametrize(
    ("coding", "name"), [("gzip", "gzip or deflate"), ("deflate", "gzip or deflate"), ("br", "brotli"), ("zstd", "zstd")]
)
@pytest.mark.parametrize("begin", [b"", b"\x1f\x8b\x08", b"\x78\x9c"])
def test_garbage_raises_undecodable(coding: str, name: str, begin: bytes) -> None:
    with pytest.raises(Undecodable, match=f"the body is not {name}: "):
        decode(coding, [begin + b"\xff" + GARBAGE])


@pytest.mark.parametrize("coding", FLUSHES)
def test_corrupt_body_yields_its_good_part_first(coding: str) -> None:
    good, more = FLUSHES[coding]([b"data: good\n\n", b"data: more\n\n"])
    decoder = decoder_for(coding)
    assert b"".join(decoder.decode(good)) == b"data: good\n\n"
    with pytest.raises(Undecodable):
        list(decoder.decode(b"\xff" * len(more) + GARBAGE))


@pytest.mark.parametrize("coding", ["GZIP", " gzip ", "Br", "ZSTD", "Deflate"])
def test_name_of_a_coding_is_read_without_regard_to_case_and_blanks(coding: str) -> None:
    assert find_decoder(coding) is not None


@pytest.mark.parametrize("coding", ["", "identity", "compress", "gzip, br", "dcb", "*"])
def test_unknown_coding_has_no_decoder(coding: str) -> None:
    assert find_decoder(coding) is None


@pytest.mark.parametrize("name", CODINGS)
def test_body_is_whole_before_its_first_byte_and_after_its_last(name: str) -> None:
    coding, encode = CODINGS[name]
    decoder = decoder_for(coding)
    whole = [decoder.whole]
    for byte in encode(STREAM[:300]):
        [*decoder.decode(bytes([byte]))]
        whole.append(decoder.whole)
    assert (whole[0], whole[-1]) == (True, True)
    assert sum(whole) == (3 if name.startswith("several") else 2)


LEAST_BYTES = 16 * 2**20
"""The size that any body may decode to."""


def size_of(decoder: Decoder, coded: bytes, chunk_bytes: int = 2**20) -> int:
    return sum(len(part) for at in range(0, len(coded), chunk_bytes) for part in decoder.decode(coded[at : at + chunk_bytes]))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Replace the decoders' clock by one whose time is `now`."""
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr("eventstream.decoding.time", clock)
    return clock


@pytest.mark.parametrize("coding", ["br", "zstd"])
@pytest.mark.parametrize("chunk_bytes", [7, 2**20])
def test_bomb_ends_at_the_limit(clock: SimpleNamespace, coding: str, chunk_bytes: int) -> None:
    coded = FLUSHES[coding]([bytes(2 * LEAST_BYTES)])[0]
    with pytest.raises(DecodedTooLarge) as raised:
        size_of(decoder_for(coding), coded, chunk_bytes)
    error = raised.value
    assert (error.limit, LEAST_BYTES < error.decoded <= LEAST_BYTES + MOST_BYTES) == (LEAST_BYTES, True)
    assert error.received <= len(coded) < LEAST_BYTES / 1000
    assert str(error) == f"{error.received} bytes of the compressed body decoded to {error.decoded} bytes, limit is 16777216"


def test_large_snapshots_that_do_not_change_may_come_slowly(clock: SimpleNamespace) -> None:
    decoder, size = decoder_for("br"), LEAST_BYTES // 4
    snapshots = FLUSHES["br"]([bytes(size)] * 14)  # each coded as some ten bytes
    for snapshot in snapshots[:8]:
        clock.now += 4.0
        assert size_of(decoder, snapshot) == size
    with pytest.raises(DecodedTooLarge):
        size_of(decoder, b"".join(snapshots[8:]))


@pytest.mark.parametrize("coding", FLUSHES)
def test_replayed_history_that_compresses_well_is_no_bomb(coding: str) -> None:
    values = [0] * 100
    history = []
    for number in range(3000):
        values[number % 100] = number
        history.append(b'id: %d\ndata: {"values": [%b]}\n\n' % (number, b", ".join(b'{"host": "host-%d"}' % value for value in values) * 3))
    plain = b"".join(history)
    assert len(plain) > LEAST_BYTES
    coded = b"".join(FLUSHES[coding]([plain]))
    assert sum(map(len, decode(coding, [coded]))) == len(plain)
