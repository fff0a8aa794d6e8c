"""What publishers send, with any bytes in fields and body: stored as it is meant, or refused with what is wrong; never an error of ours."""

import json
import re
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from producer.settings import Settings
from tests.fuzz.fuzzing import TARGET, fuzz, joined, mutated
from tests.fuzz.gatewaying import running
from tests.kit.downstream import Downstream
from tests.kit.producer import Producer, serve

pytestmark = TARGET

JSON, LINES, TEXT = b"application/json", b"application/x-ndjson", b"text/plain"
CORPUS = [
    b'{"data": "a"}', b'{"data": {"x": [1, 2.5, null, true]}, "type": "e", "retry": 5}', b'[{"data": 1}, {"data": "\\u4e03"}]',
    b'{"data": 1}\n\n{"data": 2}\r\n', b'{"message": "abc"}', "plain\r\ntext 七".encode(), b"",
]  # fmt: skip
PIECES = [
    b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\\u0000", b"\\ud800", b"\\n", b"\n", b"\r", b"\r\n", b"\0", b"\xff",
    b"\xef\xbb\xbf", b"\xc2\x85", b"null", b"NaN", b"Infinity", b"1e999", b"-0", b"9" * 5000, b'"data"', b'"type"', b'"retry"',
    b'"type": "gap"', b'"type": ""', b'"retry": -1', b'"retry": 1e3', b'"retry": true', b'"id": "x"', b"[" * 3000, b'{"data":' * 2000,
    b'"data": 1, "data": 2', b" ", b"\t", b"x" * 300, b'"message"', b"event: x", b"data: x\n\n", b"[]", b"{}",
]  # fmt: skip
TYPES = [
    JSON, TEXT, LINES, b"application/ndjson", b"application/json; charset=utf-8", b"text/plain;charset=latin-1",
    b"TEXT/PLAIN; charset=\"utf-8\"", b"application/json;charset", b"multipart/form-data; boundary=x",
    b"application/x-www-form-urlencoded", b"", b";", b"\xff", b"application/problem+json",
]  # fmt: skip
FIELDS = [
    b"Idempotency-Key: k", b"Idempotency-Key: \xff", b"Idempotency-Key: ", b"Idempotency-Key: " + b"k" * 300, b"Content-Encoding: gzip",
    b"Content-Encoding: \xff", b"Authorization: Bearer \xff", b"Authorization: x", b"Origin: \xff", b"Origin: https://a",
    b"X-Request-Id: \xff", b"Last-Event-ID: \xff", b"Accept: \xff", b"Host: \xff", b"traceparent: x",
    b"Access-Control-Request-Method: \xff", b"Access-Control-Request-Headers: \xff", b"Expect: 100-continue", b"Range: bytes=0-1",
]  # fmt: skip
TARGETS = [
    b"/topics/t/events", b"/topics/t/events", b"/topics/t/events", b"/topics/%74/events", b"/topics/t%2Eu/events", b"/topics/*/events",
    b"/topics/%ff/events", b"/topics/\xff/events", b"/topics//events", b"/topics/a/b/events", b"/topics/%00/events", b"/sse",
    b"/plain?interval_ms=0", b"/sse?interval_ms=x", b"/topics", b"/topics/t", b"/topics/t/events/x-1",
    b"/topics/t/events?follow=false&from=start&limit=1", b"/events?topic=%ff&follow=false", b"/events?topic=t&since=%zz&follow=false",
    b"/topics/t/events?since=9d&follow=false", b"/events?topic=>&follow=false&limit=99999999999999999999",
    b"/sse?repeat=99999999999999999999999", b"/sse?split=%00", b"/%ff", b"/\xff?\xff=\xff", b"*", b"/..//",
]  # fmt: skip
BODIES = mutated(CORPUS, PIECES, 3) | joined(PIECES, 8) | st.binary(max_size=30)
METHODS = [b"POST", b"POST", b"POST", b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"PUT", b"PATCH", b"FOO"]


async def ask(producer: Producer, method: bytes, target: bytes, fields: list[bytes], body: bytes) -> tuple[int, bytes]:
    lines = [b"%b %b HTTP/1.1" % (method, target), b"Host: a", b"Content-Length: %d" % len(body), *fields]
    async with Downstream(producer.port) as client:
        await client.send(b"\r\n".join([*lines, b"", b""]) + body)
        answer = await client.answer(method.decode())
        if (
            answer.head.status == 200
            and b"follow" not in target
            and (answer.head.value("Content-Type") or "").startswith("text/event-stream")
        ):
            return 200, b""  # it has no end
        return answer.head.status, await answer.to_end()


def meant(body: bytes, media_type: bytes) -> list[str] | None:
    """Return the data of the events in a body, or None if this test does not check them."""
    kind = media_type.lower().partition(b";")[0].strip()
    if kind == TEXT:
        return [body.decode()]
    try:
        values: Any = [json.loads(line) for line in body.split(b"\n") if line.strip()] if kind.endswith(b"ndjson") else json.loads(body)
    except (ValueError, RecursionError):
        return None
    events = values if isinstance(values, list) else [values]
    return [
        each["data"] if isinstance(each["data"], str) else json.dumps(each["data"], ensure_ascii=False, separators=(",", ":"))
        for each in events
    ]


async def publish(producer: Producer, method: bytes, target: bytes, media_type: bytes, fields: list[bytes], body: bytes) -> None:
    before = producer.log.last
    status, said = await ask(producer, method, target, [b"Content-Type: " + media_type, *fields], body)
    assert 200 <= status < 500, (status, said)
    if status >= 400 and method not in (b"HEAD", b"OPTIONS") and not said.startswith(b"Invalid HTTP request"):
        assert json.loads(said)["status"] == status
    if method != b"POST" or b"/topics/" not in target:
        return
    assert (status in (200, 201)) or producer.log.last == before
    if status == 201 and (data := meant(body, media_type)) is not None:
        assert producer.log.last == before + len(data)
        for offset, text in zip(range(before + 1, producer.log.last + 1), data, strict=True):
            stored = await producer.log.get(offset)
            assert stored is not None
            lines = [line.removeprefix(b"data: ") for line in stored.block.split(b"\n") if line.startswith(b"data: ")]
            assert b"\n".join(lines) == re.sub("\r\n|\r", "\n", text).encode()


def test_publishing(tmp_path: Path) -> None:
    with running() as rig:
        producer = rig.enter(serve(Settings(demo=False, log_dir=tmp_path / "log", interval_ms=0, max_message_chars=1000)))

        def check_publishing(method: bytes, target: bytes, media_type: bytes, fields: list[bytes], body: bytes) -> None:
            rig.run(publish(producer, method, target, media_type, fields, body))

        types, fields = st.sampled_from([JSON, TEXT, LINES, *TYPES]), st.lists(st.sampled_from(FIELDS), max_size=2)
        odd = st.tuples(st.sampled_from(METHODS), st.sampled_from(TARGETS), types, fields, BODIES)
        plain = st.tuples(st.just(b"POST"), st.just(TARGETS[0]), st.sampled_from([JSON, TEXT, LINES]), st.just([]), BODIES)
        fuzz(lambda drawn: check_publishing(*drawn), plain | odd, shrinks=False)
