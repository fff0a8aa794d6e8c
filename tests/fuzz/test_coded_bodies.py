"""Bodies with a content coding, of any bytes and in any cuts: decoded as by the whole, in parts of a bounded size, or said to be none."""

import gzip
import zlib

import brotli
from hypothesis import strategies as st

from eventstream import DecodedTooLarge, Undecodable, content_codings
from eventstream.decoding import PART_BYTES, find_decoder, is_readable, zstd
from tests.eventstream.reference import PLACES, cut_at
from tests.fuzz.fuzzing import TARGET, fuzz, mutated

pytestmark = TARGET

MOST_PART_BYTES = 2 * PART_BYTES + 64 * 1024
"""The brotli library stops after its limit, not before it."""
PLAIN = [b"", b"x", b"data: a\n\n" * 300, bytes(range(256)) * 40, b"\0" * 300_000]
ENCODE = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": lambda plain: bytes(brotli.compress(plain, quality=3)),
    "zstd": zstd.compress,
}
CORPUS = [(coding, encode(plain)) for coding, encode in ENCODE.items() for plain in PLAIN]
PIECES = [
    b"\x1f\x8b\x08",
    b"\x28\xb5\x2f\xfd",
    b"\x78\x9c",
    b"\0\0\xff\xff",
    b"\x03\0",
    b"\xff" * 8,
    b"\0" * 8,
    *(coded for _, coded in CORPUS[:2]),
]
FIELDS = [
    "",
    "gzip",
    "x-gzip",
    "GZIP ",
    "deflate",
    "br",
    "zstd",
    "identity",
    "none",
    "gzip, br",
    "identity, gzip",
    ",",
    ",gzip,",
    "compress",
    "\udcff",
    "gzip;q=1",
]


def decode(coding: str, chunks: list[bytes]) -> tuple[bytes, bool, bool]:
    """Return the decoded bytes, whether the body may end there, and whether it is valid in its coding."""
    decoder = find_decoder(coding)
    assert decoder is not None
    plain = b""
    try:
        for chunk in chunks:
            for part in decoder.decode(chunk):
                assert len(part) <= MOST_PART_BYTES
                plain += part
    except (Undecodable, DecodedTooLarge):
        return plain, False, False
    return plain, decoder.whole, True


def check_coded_bodies(coding: str, coded: bytes, places: list[int]) -> None:
    whole, pieces = decode(coding, [coded]), decode(coding, cut_at(coded, places))
    assert pieces[1:] == whole[1:]
    if whole[2]:
        assert pieces[0] == whole[0]
    else:
        assert pieces[0].startswith(whole[0]) or whole[0].startswith(pieces[0])
    if (coding, coded) in CORPUS:
        assert whole == (PLAIN[CORPUS.index((coding, coded)) % len(PLAIN)], True, True)


def check_content_codings(field: str) -> None:
    assert (find_decoder(field) is not None) == (is_readable(field) and content_codings(field) != ())


def test_coded_bodies() -> None:
    changed = st.sampled_from(list(ENCODE)).flatmap(
        lambda coding: st.tuples(st.just(coding), mutated([coded for each, coded in CORPUS if each == coding], PIECES, 4))
    )
    fuzz(lambda drawn, places: check_coded_bodies(*drawn, places), st.sampled_from(CORPUS) | changed, PLACES)


def test_content_codings() -> None:
    fuzz(check_content_codings, st.sampled_from(FIELDS) | st.text(max_size=12))
