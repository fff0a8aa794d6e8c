"""Requests that offer another protocol are answered as if they did not, and their body is read."""

import asyncio
import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from producer.settings import Settings
from tests.kit.producer import Producer, events_of, serve
from tests.kit.waiting import GUARD_SECONDS

FAST = Settings(interval_ms=0)
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n"
BODY = json.dumps({"message": "abc"}).encode()
NEXT = b"GET /livez HTTP/1.1\r\nHost: producer\r\nConnection: close\r\n\r\n"
STATUS = re.compile(rb"HTTP/1\.1 (\d+)")


def post(body: bytes, *, fields: bytes = H2C, chunked: bool = False) -> bytes:
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(body)
    sent = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if chunked else body
    return b"POST /plain HTTP/1.1\r\nHost: producer\r\nContent-Type: application/json\r\n" + framing + b"\r\n" + fields + b"\r\n" + sent


async def answers(producer: Producer, parts: Sequence[bytes]) -> bytes:
    """Return all answers to these parts, each sent on its own; the last of the requests must close the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", producer.port)
    async with asyncio.timeout(GUARD_SECONDS):
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        received = await reader.read()
    writer.close()
    return received


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("fields", [H2C, b"Connection: upgrade\r\nUpgrade: websocket\r\n", b"Upgrade: h2c\r\n"])
async def test_body_is_read_and_so_is_the_next_request(fields: bytes, chunked: bool) -> None:
    sent = post(BODY, fields=fields, chunked=chunked) + post(BODY, fields=fields, chunked=chunked) + NEXT
    async with serve(FAST) as producer:
        whole = await answers(producer, [sent])
        pieces = [await answers(producer, [sent[:at], sent[at:]]) for at in range(1, len(sent), 7)]
        byte_by_byte = await answers(producer, [sent[at : at + 1] for at in range(len(sent))])
    for received in (whole, *pieces, byte_by_byte):
        assert STATUS.findall(received) == [b"200"] * 3
        assert re.findall(rb"data: (.)", received) == [b"a", b"b", b"c"] * 2


async def test_request_in_a_body_is_not_taken_for_a_request() -> None:
    async with serve(FAST) as producer:
        received = await answers(producer, [post(b"DELETE /topics/a HTTP/1.1\r\nHost: producer\r\n\r\n"), NEXT])
        assert STATUS.findall(received) == [b"422", b"200"]
        assert 'method="DELETE"' not in (await producer.http.get("/metrics")).text


async def test_crowd_of_pipelined_upgrades_is_answered() -> None:
    head = b"GET /livez HTTP/1.1\r\nHost: p\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    async with serve(FAST) as producer:
        received = await answers(producer, [head * 2000 + NEXT])
    assert STATUS.findall(received) == [b"200"] * 2001


async def run(*command: str) -> bytes:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(GUARD_SECONDS):
        output, _ = await process.communicate()
    assert process.returncode == 0
    return output


@pytest.mark.curl
async def test_curl_that_offers_http_2_posts_a_message_and_an_event() -> None:
    curl = ("curl", "-sS", "--noproxy", "*", "--http2", "-H", "Content-Type: application/json")
    async with serve(FAST) as producer:
        url = f"http://127.0.0.1:{producer.port}"
        body = await run(*curl, f"{url}/sse", "-d", BODY.decode())
        published = await run(*curl, f"{url}/topics/a/events", "-d", '{"data": 1}')
        assert json.loads(published)["id"].endswith("-1")
    assert [event.data for event in events_of(body)] == list("abc")


@pytest.mark.maven
async def test_java_s_http_client_posts_a_message_and_an_event(tmp_path: Path) -> None:
    source = tmp_path / "Post.java"
    source.write_text(
        """
        import java.net.URI;
        import java.net.http.*;
        public class Post {
            public static void main(String[] asked) throws Exception {
                var client = HttpClient.newHttpClient();
                for (int number = 0; number + 1 < asked.length; number += 2) {
                    var request = HttpRequest.newBuilder(URI.create(asked[number])).header("Content-Type", "application/json")
                        .POST(HttpRequest.BodyPublishers.ofString(asked[number + 1])).build();
                    System.out.print(client.send(request, HttpResponse.BodyHandlers.ofString()).body());
                }
            }
        }
        """
    )
    async with serve(FAST) as producer:
        url = f"http://127.0.0.1:{producer.port}"
        said = await run("java", str(source), f"{url}/plain", BODY.decode(), f"{url}/topics/a/events", '{"data": 1}')
    stream, _, published = said.rpartition(b"\n\n")
    assert [event.data for event in events_of(stream + b"\n\n")] == list("abc")
    assert json.loads(published)["id"].endswith("-1")
