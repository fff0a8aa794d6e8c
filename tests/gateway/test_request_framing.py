"""Requests are framed as aiohttp's parser does it, wherever their bytes are cut."""

import pytest

from gateway.http.request_framing import Refused, body_of, for_parser, take_head

HEAD = b"POST /a HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\n"
BODY = b'3\r\nabc\r\nA;x="y"\r\n0123456789\r\n0\r\nX-Sum: 7\r\n\r\n'
LIMIT = 1000


def test_head_is_taken_when_it_is_whole() -> None:
    pending = bytearray()
    for byte in b"\r\n" + HEAD[:-1]:
        pending.append(byte)
        assert take_head(pending, LIMIT) is None
    pending += HEAD[-1:] + b"rest"
    assert take_head(pending, LIMIT) == HEAD
    assert pending == b"rest"


@pytest.mark.parametrize("step", [1, 2, 3, 7, 100])
def test_chunked_body_ends_behind_its_trailers(step: int) -> None:
    body = body_of(HEAD, LIMIT)
    assert body is not None
    pending, taken, wire = bytearray(), b"", BODY + b"GET "
    for at in range(0, len(wire), step):
        pending += wire[at : at + step]
        if not body.ended:
            taken += body.take(pending)
    assert (body.ended, taken, pending) == (True, BODY, b"GET ")


def test_body_with_a_length_ends_there() -> None:
    body = body_of(HEAD.replace(b"Transfer-Encoding: chunked", b"Content-Length: 3"), LIMIT)
    assert body is not None
    pending = bytearray(b"abcGET ")
    assert (body.take(pending), body.ended, pending) == (b"abc", True, b"GET ")


def test_request_without_a_body_has_none() -> None:
    assert body_of(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", LIMIT) is None


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"\x16\x03\x01", 400),
        (b" GET / HTTP/1.1\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * LIMIT, 431),
    ],
)
def test_bad_head_is_refused(head: bytes, status: int) -> None:
    with pytest.raises(Refused) as refused:
        take_head(bytearray(head), LIMIT)
    assert refused.value.refusal.status == status


@pytest.mark.parametrize(
    ("wire", "status"),
    [
        (b"x\r\n", 400),
        (b"0x1\r\n", 400),
        (b"1 \r\n", 400),
        (b"1\nx", 400),
        (b"1\r\nxy", 400),
        (b"1;a\rb", 400),
        (b"0\r\nContent-Length: 5\r\n\r\n", 400),
        (b"0\r\n" + b"X: y\r\n" * 100, 431),
        (b"1;" + b"a" * LIMIT, 431),
    ],
)
def test_bad_chunk_is_refused(wire: bytes, status: int) -> None:
    body = body_of(HEAD, LIMIT)
    assert body is not None
    with pytest.raises(Refused) as refused:
        body.take(bytearray(wire))
    assert refused.value.refusal.status == status


def test_target_beyond_ascii_is_encoded_for_the_parser() -> None:
    head = "GET /ä HTTP/1.1\r\nX: ä\r\n\r\n".encode()
    assert for_parser(head) == ("GET /%C3%A4 HTTP/1.1\r\nX: ä\r\n\r\n".encode(), "GET /ä HTTP/1.1\r".encode())
    assert for_parser(HEAD) == (HEAD, b"")
