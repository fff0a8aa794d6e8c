"""Test `python -m gateway doctor URL` over real sockets."""

import asyncio
import json
import re
import subprocess
import zlib

import pytest

from gateway.doctor.command import doctor
from tests.doctor.consulting import consult
from tests.kit.stack import environment, free_ports, service_command
from tests.kit.upstream import EVENT_STREAM_HEAD, LAST_CHUNK, Act, Asked, Disconnect, Flood, Script, ScriptedUpstream, Silence, chunk

HEAD = EVENT_STREAM_HEAD.replace(b"\r\n\r\n", b"\r\nCache-Control: no-cache\r\nConnection: close\r\n\r\n")
EVENTS = b"retry: 2000\nid: 1\ndata: one\n\n", b"id: 2\ndata: two\n\n", b"id: 3\ndata: three\n\n"
LATER = Act(lambda reader, writer: asyncio.sleep(0.2))
"""A pause that lets the client read the bytes sent so far, which a reset could discard."""
SECRET = "hunter2-hunter2"


def resuming(asked: Asked) -> Script:
    """Return a stream of three events that resumes after the last event ID."""
    behind = int(asked.header("Last-Event-ID") or 0)
    return (HEAD, *(chunk(event) for event in EVENTS[behind:]), LAST_CHUNK, Disconnect())


async def test_healthy_stream_gives_status_0_and_a_text_that_says_so() -> None:
    async with ScriptedUpstream(resuming) as server:
        said = await consult(server.url + "/news", "--seconds", "5")
    assert said.status == 0
    lines = said.out.splitlines()
    assert lines[0] == f"{server.url}/news"
    assert "ok        status: 200 OK" in lines
    assert "ok        resuming: asked to resume after 2: resumes, 1 of 1 missed events arrived, in order" in lines
    assert "ok        end: ended cleanly after" in said.out
    assert lines[-1] == "healthy: no complaints"
    assert [asked.header("Accept-Encoding") for asked in server.requests] == ["identity", "gzip, deflate, br, zstd", "identity"]
    assert [asked.header("Accept") for asked in server.requests] == ["text/event-stream"] * 3


async def test_json_report_has_the_findings_and_their_numbers() -> None:
    async with ScriptedUpstream(resuming) as server:
        said = await consult(server.url, "--json", "--seconds", "5")
    report = said.report
    assert report["healthy"] is True
    assert report["url"] == server.url
    assert report["measured"] | {"blocks": 3, "events": 3, "end": "complete", "retry_ms": 2000, "http_version": "1.1"} == report["measured"]
    assert all(set(finding) == {"check", "severity", "seen", "means", "do"} for finding in report["findings"])
    assert report["counts"]["ok"] == len(report["findings"])


LENGTH_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 500\r\n\r\n"


@pytest.mark.parametrize(
    ("script", "seen"),
    [
        ((HEAD, chunk(EVENTS[0]), Disconnect()), "without the last chunk"),
        ((HEAD, chunk(EVENTS[0] + b"data: hal"), Disconnect()), "without the last chunk, 9 bytes into a block"),
        ((HEAD, chunk(EVENTS[0]), LATER, Disconnect(reset=True)), "reset after"),
        ((LENGTH_HEAD, EVENTS[0], Disconnect()), "before Content-Length was reached"),
        ((HEAD, chunk(EVENTS[0] + b"data: hal"), LAST_CHUNK, Disconnect()), "ended cleanly"),
        ((HEAD, chunk(EVENTS[0]), LATER, b"nonsense\r\n", Silence()), "without the last chunk"),
    ],
    ids=["no last chunk", "inside a block", "reset", "short of its length", "half a block", "bad chunk"],
)
async def test_bad_end_is_a_problem_and_gives_status_1(script: Script, seen: str) -> None:
    async with ScriptedUpstream(script) as server:
        said = await consult(server.url, "--json", "--seconds", "5", "--once")
    assert said.status == 1
    assert said.finding("end")["severity"] == "problem"
    assert seen in said.finding("end")["seen"]
    assert len(server.requests) == 1


async def test_server_that_does_not_answer_is_a_problem_and_gets_no_second_request() -> None:
    async with ScriptedUpstream((Silence(),)) as silent, ScriptedUpstream((Disconnect(),)) as closing:
        waiting, closed = await asyncio.gather(
            consult(silent.url, "--json", "--seconds", "0.5"), consult(closing.url, "--json", "--seconds", "5", "--once")
        )
    assert (waiting.status, closed.status) == (1, 1)
    waited = re.fullmatch(r"connected, but no answer within (\d+\.\d) s", waiting.finding("answer")["seen"])
    assert waited, waiting.finding("answer")
    assert float(waited[1]) >= 0.5  # more on a busy machine
    assert "without an answer: " in closed.finding("answer")["seen"]
    assert len(closing.requests) == 1


async def test_doctor_decodes_an_unrequested_compression_and_complains() -> None:
    packer = zlib.compressobj(wbits=31)
    packed = [packer.compress(event) + packer.flush(zlib.Z_SYNC_FLUSH) for event in EVENTS]
    head = HEAD.replace(b"Cache-Control", b"Content-Encoding: gzip\r\nCache-Control")
    broken = (head, chunk(packed[0]), LATER, chunk(b"\xff" * 40), LAST_CHUNK, Disconnect())
    async with ScriptedUpstream((head, *map(chunk, packed), LAST_CHUNK, Disconnect())) as server, ScriptedUpstream(broken) as bad:
        said, worse = await asyncio.gather(*(consult(each.url, "--json", "--seconds", "5", "--once") for each in (server, bad)))
    assert said.status == worse.status == 1
    assert said.finding("compression")["seen"] == "gzip, not requested"
    assert said.report["measured"]["events"] == 3
    assert said.report["measured"]["bytes"] == sum(map(len, EVENTS))
    assert "the body is not gzip" in worse.finding("compression")["seen"]
    assert worse.report["measured"]["events"] == 1


async def test_doctor_sends_a_post_once_unless_given_no_once() -> None:
    async with ScriptedUpstream(resuming) as server:
        assert (await consult(server.url, "--data", '{"a": 1}', "--seconds", "5")).status == 0
        asked, again = server.requests
        assert (asked.method, asked.body, asked.header("Content-Type")) == ("POST", b'{"a": 1}', "application/json")
        assert (again.method, again.body, again.header("Last-Event-ID")) == ("GET", b"", "2")
        assert (
            await consult(server.url, "-X", "put", "-d", "words", "-H", "Content-Type: text/x", "--no-once", "--seconds", "5")
        ).status == 0
        assert [(asked.method, asked.header("Content-Type")) for asked in server.requests[2:]] == [("PUT", "text/x")] * 3 + [("GET", None)]


async def test_doctor_follows_a_redirect_without_credentials_for_another_origin() -> None:
    async with ScriptedUpstream(resuming) as target:
        redirect = f"HTTP/1.1 307 Temporary Redirect\r\nLocation: {target.url}/x?k=v\r\nContent-Length: 0\r\n\r\n".encode()
        async with ScriptedUpstream((redirect,)) as server:
            said = await consult(server.url, "--json", "--once", "--seconds", "5", "-H", f"Authorization: Bearer {SECRET}")
    assert said.finding("redirects")["seen"] == f"redirected to {target.url}/x?k=…"
    assert server.requests[0].header("Authorization") == f"Bearer {SECRET}"
    assert target.requests[0].header("Authorization") is None
    assert target.requests[0].header("Accept") == "text/event-stream"


async def test_doctor_judges_an_answer_without_a_body_by_its_status() -> None:
    async with ScriptedUpstream((b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", Disconnect())) as server:
        said = await consult(server.url, "--json", "--seconds", "5")
    assert said.status == 0
    assert (said.finding("status")["severity"], said.finding("status")["seen"]) == ("note", "204 No Content")


@pytest.mark.parametrize(("status", "method"), [(302, "GET"), (303, "GET"), (307, "POST")])
async def test_redirect_of_a_post_keeps_or_changes_the_method_by_its_status(status: int, method: str) -> None:
    redirect = f"HTTP/1.1 {status} Elsewhere\r\nLocation: /there\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
    async with ScriptedUpstream((redirect, Disconnect()), resuming) as server:
        said = await consult(server.url, "--data", "words", "-H", f"X-Key: {SECRET}", "--json", "--seconds", "5")
    assert said.status == 0
    second = server.requests[1]
    assert (second.method, second.target, second.header("X-Key")) == (method, "/there", SECRET)
    assert second.body == (b"words" if method == "POST" else b"")
    assert second.header("Content-Type") == ("text/plain" if method == "POST" else None)


async def test_secrets_appear_neither_in_the_report_nor_in_the_progress() -> None:
    def repeating(asked: Asked) -> Script:
        again = asked.header("Authorization") or ""
        event = f"id: {SECRET}\nevent: {SECRET}\n{SECRET}\ndata: {again} {asked.target}\n\n: {SECRET}\n\n".encode()
        head = HEAD.replace(b"Cache-Control", f"Server: nginx {again}\r\nX-Cache: HIT {SECRET}\r\nCache-Control".encode())
        altered = event.replace(b"data", b"atad") if "through" in asked.target else event
        return head, chunk(event), chunk(altered), chunk(event + f"data: {SECRET}".encode()), LAST_CHUNK, Disconnect()

    async with ScriptedUpstream(repeating) as server:
        there = server.url.replace("://", f"://user:{SECRET}@")
        arguments = ["-H", f"Cookie: session={SECRET}", "--seconds", "5"]
        urls = [f"{there}/?token={SECRET}", "--through", f"{server.url}/through?token={SECRET}"]
        text, as_json = await asyncio.gather(consult(*urls, *arguments), consult(*urls, *arguments, "--json"))
    assert text.status == as_json.status == 1
    assert "changed" in text.out
    assert as_json.report["comparison"]["alterations"]
    for said in (text, as_json):
        assert SECRET not in said.out + said.err
        assert SECRET.encode().hex(" ") not in said.out
        assert SECRET.encode().hex(" ", 1)[:20] not in said.out


async def test_doctor_listens_to_two_paths_at_once_and_compares_them() -> None:
    def rewriting(asked: Asked) -> Script:
        return (HEAD, *(chunk(event.replace(b"two", b"TWO")) for event in EVENTS), LAST_CHUNK, Disconnect())

    async with ScriptedUpstream(resuming) as direct, ScriptedUpstream(rewriting) as through:
        said = await consult(direct.url, "--through", through.url, "--seconds", "5", "--once")
        as_json = await consult(direct.url, "--through", through.url, "--seconds", "5", "--once", "--json")
    assert said.status == 1
    assert "3 blocks arrived on both paths, 2 of them unchanged; 1 altered" in said.out
    assert r"direct  id: 2\ndata: two\n\n" in said.out
    assert r"through id: 2\ndata: TWO\n\n" in said.out
    assert "69 64 3a 20 32 0a 64 61 74 61 3a 20 54 57 4f 0a 0a" in said.out
    assert [alteration["difference"]["offset"] for alteration in as_json.report["comparison"]["alterations"]] == [12]
    assert as_json.report["through"]["url"] == through.url


async def test_refused_connection_gives_status_2() -> None:
    [port] = free_ports(1)
    url = f"http://127.0.0.1:{port}/events?token={SECRET}"
    said, as_json = await asyncio.gather(consult(url), consult(url, "--json"))
    assert said.status == as_json.status == 2
    assert said.out == ""
    assert f"doctor: http://127.0.0.1:{port}/events?token=… could not connect: Cannot connect" in said.err
    assert as_json.report["error"].startswith("Cannot connect")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: URL"),
        (["ftp://example.org/"], "must begin with http:// or https:// and name a host"),
        (["http://example.org/", "--through", "example.org"], "must begin with http:// or https://"),
        (["http://example.org/", "--seconds", "0"], "must be a number of seconds above 0, got 0"),
        (["http://example.org/", "--header", f"{SECRET}"], "--header number 1 must have the form 'Name: value'"),
        (["http://example.org/", "--header", f"A: a\n{SECRET}"], "--header number 1 must not contain control characters"),
        (["http://example.org/", "--data", "@/nowhere/at/all"], "No such file"),
        (["http://example.org/", "--method", "GET /"], "--method must be a word"),
    ],
)
def test_wrong_usage_gives_status_2_and_a_message_with_the_allowed_values(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        doctor(arguments)
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert message in said
    assert SECRET not in said


async def test_doctor_process_prints_progress_and_ctrl_c_ends_it_early() -> None:
    async with ScriptedUpstream((HEAD, chunk(EVENTS[0]), Silence())) as server:
        process = await asyncio.create_subprocess_exec(
            *service_command("gateway", "doctor", server.url, "--json"),
            env=environment("gateway", {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stderr is not None
        async with asyncio.timeout(60):
            lines = [await process.stderr.readline()]
            while b"1 blocks" not in lines[-1]:
                lines.append(await process.stderr.readline())
                assert lines[-1], lines
            process.send_signal(2)
            out, _ = await process.communicate()
    assert lines[0] == b"listening for at most 30 s; Ctrl-C stops early\n"
    assert process.returncode == 0
    assert json.loads(out)["measured"]["events"] == 1


async def test_doctor_finds_a_block_beyond_the_limit_and_stops_listening_to_a_flood() -> None:
    endless = (HEAD, chunk(EVENTS[0]), Flood(b"data: " + b"x" * 65_000 + b"\n"))
    flood = (HEAD, Flood((b"data: " + b"x" * 2000 + b"\n\n") * 100))
    async with ScriptedUpstream(endless) as large, ScriptedUpstream(flood) as fast:
        too_large, much = await asyncio.gather(*(consult(each.url, "--json", "--once", "--seconds", "20") for each in (large, fast)))
    assert too_large.finding("sizes")["seen"] == f"a block of more than {8 * 1024 * 1024} bytes"
    assert too_large.status == 1
    assert much.status == 0
    assert much.report["measured"]["end"] == "open"
    assert 4_000_000 < much.report["measured"]["bytes"] < 6_000_000


NONE_HEAD = HEAD.replace(b"Cache-Control", b"Content-Encoding: none\r\nCache-Control")
ERROR_HEAD = b"HTTP/1.1 429 Slow\r\nContent-Type: text/event-stream\r\nContent-Length: 12\r\n\r\n"


@pytest.mark.parametrize(
    ("script", "check", "severity", "words"),
    [
        ((ERROR_HEAD + b'{"error": 1}',), "content type", "warning", "text/event-stream on status 429"),
        ((HEAD, chunk(b"data: one\n\ndata: [DONE]\n"), LAST_CHUNK), "end", "problem", "inside a block: data: [DONE]"),
        ((NONE_HEAD, chunk(b"data: one\n\n"), LAST_CHUNK), "compression", "warning", "Content-Encoding: none"),
        ((HEAD, chunk(b":\n"), LATER, chunk(b"data: one\n\n"), LAST_CHUNK), "comments ahead", "warning", "begin with a comment line"),
    ],
    ids=["an error labelled as a stream", "an unfinished block at the end", "an unregistered coding", "a comment glued to an event"],
)
async def test_doctor_names_faults_that_break_some_clients_and_proxies(script: Script, check: str, severity: str, words: str) -> None:
    async with ScriptedUpstream([*script, Disconnect()]) as server:
        said = await consult(server.url, "--json", "--seconds", "5", "--once")
    finding = said.finding(check)
    assert (finding["severity"], words in finding["seen"]) == (severity, True)
    assert finding["means"]
    assert finding["do"]
