"""The consumer as a process: what it logs, survives and refuses, and how it ends."""

import asyncio
import contextlib
import json
import os
import random
import resource
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from consumer.segment import list_segments
from tests.conftest import DEVICE_BYTES
from tests.consumer.replaying import Manner, Replay, event_data, replaying
from tests.kit.consumer import QUICK, ConsumerProcess, assert_clean, consuming, eventually, read_lines, read_log, segment
from tests.kit.stack import QUICK_START, REPOSITORY, clean_environment, refusing, resident_bytes, service_command
from tests.kit.upstream import EVENT_STREAM_HEAD, LAST_CHUNK, Disconnect, Flood, ScriptedUpstream, Silence, chunk
from tests.kit.waiting import GUARD_SECONDS

NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


def stream(*blocks: bytes) -> bytes:
    return EVENT_STREAM_HEAD + b"".join(chunk(block) for block in blocks)


def ids(log_dir: Path) -> list[str | None]:
    return ["gap" if "gap" in line else line["id"] for line in read_log(log_dir)]


def numbers(last: int) -> list[str]:
    return [str(number) for number in range(1, last + 1)]


async def test_each_event_is_one_json_line_in_the_log_and_the_same_on_stdout(tmp_path: Path) -> None:
    script = [stream(b"id: 1\nevent: greeting\ndata: a\ndata: b\n\n", b"data: no id\n\n"), Silence()]
    async with ScriptedUpstream(script) as upstream, consuming(tmp_path, f"{upstream.url}/path?token=secret") as consumer:
        first, second = await consumer.logs(2)
        source = f"{upstream.url}/path"
        assert first == {
            "received_at": first["received_at"],
            "source": source,
            "id": "1",
            "type": "greeting",
            "data": "a\nb",
            "position": first["position"],
        }
        assert (second["id"], second["type"], second["data"], second["last_event_id"]) == (None, "message", "no id", "1")
        assert [line["position"].rpartition("-")[2] for line in (first, second)] == ["1", "2"]
        while len(consumer.events) < 2:
            assert await consumer.read_line()
        assert consumer.events == [first, second]
        assert (await consumer.is_ready())[0]
        assert upstream.requests[0].header("Last-Event-ID") is None
        assert upstream.requests[0].target == "/path?token=secret"


async def test_status_port_shows_the_state_and_no_secrets(tmp_path: Path) -> None:
    script = [stream(b"id: 1\ndata: a\n\n", b"id: 2\ndata: b\n\n"), Disconnect()]
    again = [stream(b"id: 2\ndata: b\n\n", b"id: 5\ndata: e\n\n"), Silence()]
    async with ScriptedUpstream(script, again) as upstream:
        url = upstream.url.replace("//", "//user:password@") + "/?token=secret"
        async with consuming(tmp_path, url, CONSUMER_SOURCE_HEADERS='{"X-Key": "secret"}') as consumer:
            consumer.read_in_background()
            await consumer.meter_reaches("consumer_durable_lines_total", 4)
            expected = {
                "consumer_ready": 1,
                "consumer_connected": 1,
                "consumer_events_total": 3,
                "consumer_reconnections_total": 1,
                "consumer_duplicates_dropped_total": 1,
                "consumer_gaps_total": 1,
                "consumer_missed_events_total": 2,
                "consumer_pending_bytes": 0,
                "consumer_log_writable": 1,
                "consumer_stdout_left_out_lines_total": 0,
            }
            assert {name: await consumer.meter(name) for name in expected} == expected
            assert await consumer.meter("consumer_received_bytes_total") == 4 * len(b"id: 1\ndata: a\n\n")
            assert 0 <= await consumer.meter("consumer_last_event_age_seconds") < GUARD_SECONDS
            metrics = (await consumer.http.get("/metrics")).text
            assert 'consumer_last_error{reason="' in metrics
            assert (await consumer.http.get("/livez")).json() == {"status": "alive"}
            assert await consumer.stop() == 0
        assert upstream.requests[0].header("X-Key") == "secret"
        said = metrics + json.dumps(consumer.facts + consumer.events) + b"".join(read_lines(tmp_path)).decode()
        assert "secret" not in said
        assert "password" not in said


async def test_id_that_a_header_cannot_carry_is_not_sent_after_a_restart(tmp_path: Path) -> None:
    async with ScriptedUpstream([stream(b"id: \x01\ndata: a\n\n"), Silence()]) as upstream:
        for count in (1, 2):
            async with consuming(tmp_path, upstream.url) as consumer:
                await consumer.meter_reaches("consumer_received_bytes_total", 1)
                await consumer.logs(1)
                assert await consumer.stop() == 0
            assert len(upstream.requests) == count
        assert upstream.requests[1].header("Last-Event-ID") is None


async def test_method_and_body_are_sent_on_every_connection(tmp_path: Path) -> None:
    scripts = [[stream(b"id: 1\ndata: a\n\n") + LAST_CHUNK, Disconnect()], [stream(b"id: 2\ndata: b\n\n"), Silence()]]
    settings = {"CONSUMER_SOURCE_METHOD": "POST", "CONSUMER_SOURCE_BODY": '{"message": "hi"}'}
    async with ScriptedUpstream(*scripts) as upstream, consuming(tmp_path, upstream.url, **settings) as consumer:
        await consumer.logs(2)
        assert [(asked.method, asked.body) for asked in upstream.requests] == [("POST", b'{"message": "hi"}')] * 2


@pytest.mark.parametrize(("manner", "sync"), [("exact", "always"), ("asked again", "interval"), ("from the beginning", "always")])
async def test_every_event_is_logged_once_through_kill_9_at_any_moment(tmp_path: Path, manner: Manner, sync: str) -> None:
    last = 250
    settings = {"CONSUMER_SEGMENT_MAX_BYTES": "6000", "CONSUMER_SYNC": sync}
    constants = {"consumer.log.SYNC_SECONDS": 0.02}
    moments = random.Random(f"{manner} {sync}")
    async with replaying(Replay(last, interval=0.0005, manner=manner, cut=60)) as replay:
        for _ in range(4):
            have = len(read_log(tmp_path))
            async with consuming(tmp_path, replay.url, started=False, constants=constants, **settings) as consumer:
                consumer.read_in_background()
                await eventually(lambda have=have: True if have == last or len(read_log(tmp_path)) > have else None)  # type: ignore[misc]
                await asyncio.sleep(moments.random() * 0.1)  # any moment is as good as another for the kill
                await consumer.kill()
        async with consuming(tmp_path, replay.url, constants=constants, **settings) as consumer:
            consumer.read_in_background()
            lines = await consumer.logs(last)
            assert await consumer.stop() == 0
    assert [line["id"] for line in lines] == numbers(last)
    assert [line["data"] for line in lines] == [event_data(number) for number in range(1, last + 1)]
    assert_clean(tmp_path)
    assert len(list_segments(tmp_path)) > 3


async def test_restart_resumes_after_the_newest_line_and_reports_a_removed_torn_line(tmp_path: Path) -> None:
    async with replaying(Replay(5)) as replay:
        async with consuming(tmp_path, replay.url) as consumer:
            consumer.read_in_background()
            await consumer.logs(5)
            await consumer.kill()
        [newest] = list_segments(tmp_path)
        newest.path.write_bytes(newest.path.read_bytes()[:-3])
        async with consuming(tmp_path, replay.url) as consumer:
            consumer.read_in_background()
            assert (await consumer.says("a torn last line was removed from the log: it was never acknowledged"))["bytes"] > 100
            await consumer.logs(5)
        assert replay.asked == [None, "4"]
    assert_clean(tmp_path)


async def test_id_that_was_reset_is_not_sent_after_a_restart(tmp_path: Path) -> None:
    async with ScriptedUpstream([stream(b"id: 7\ndata: a\n\n", b"id\ndata: b\n\n"), Silence()]) as upstream:
        for count in (2, 3):
            async with consuming(tmp_path, upstream.url) as consumer:
                await consumer.logs(count)
                await consumer.kill()
        assert [asked.header("Last-Event-ID") for asked in upstream.requests] == [None, None]
        assert ids(tmp_path) == ["7", "", ""], "the event with an ID is known, the one without an ID is repeated"


async def test_jump_over_a_restart_becomes_a_gap_that_verify_reports(tmp_path: Path) -> None:
    scripts = [[stream(b"id: 1\ndata: a\n\n", b"id: 2\ndata: b\n\n"), Silence()], [stream(b"id: 9\ndata: c\n\n"), Silence()]]
    async with ScriptedUpstream(*scripts) as upstream:
        for count in (2, 4):
            async with consuming(tmp_path, upstream.url) as consumer:
                await consumer.logs(count)
                await consumer.kill()
    assert ids(tmp_path) == ["1", "2", "gap", "9"]
    assert read_log(tmp_path)[2]["gap"]["missed"] == 6


async def test_retry_line_after_the_last_block_sets_the_reconnection_time(tmp_path: Path) -> None:
    """The producer and the gateway end streams this way. Without it the consumer would wait for an hour."""
    first = [stream(b"retry: 3600000\nid: 1\ndata: a\n\n", b"retry: 10\n"), LAST_CHUNK]
    async with ScriptedUpstream(first, [stream(b"id: 2\ndata: b\n\n"), Silence()]) as upstream:
        async with consuming(tmp_path, upstream.url) as consumer:
            assert [line["id"] for line in await consumer.logs(2)] == ["1", "2"]
        assert upstream.requests[1].header("Last-Event-ID") == "1"


async def test_content_encoding_none_is_no_coding(tmp_path: Path) -> None:
    head = EVENT_STREAM_HEAD.replace(b"Transfer-", b"Content-Encoding: none\r\nTransfer-")
    script = [head, chunk(b"id: 1\ndata: a\n\n"), Silence()]
    async with ScriptedUpstream(script) as upstream, consuming(tmp_path, upstream.url) as consumer:
        assert [line["data"] for line in await consumer.logs(1)] == ["a"]


async def test_204_finishes_the_source_and_the_consumer_stays_idle_and_ready(tmp_path: Path) -> None:
    scripts = [[stream(b"id: 1\ndata: a\n\n") + LAST_CHUNK, Disconnect()], [NO_CONTENT]]
    async with ScriptedUpstream(*scripts) as upstream, consuming(tmp_path, upstream.url) as consumer:
        consumer.read_in_background()
        await consumer.says("the source is finished: it answered 204 No Content")
        assert (await consumer.is_ready())[0]
        assert 'consumer_source_state{state="finished"} 1.0' in (await consumer.http.get("/metrics")).text
        assert await consumer.stop() == 0
        assert len(upstream.requests) == 2


async def test_refusal_is_reported_and_retried_slowly(tmp_path: Path) -> None:
    scripts = [[stream(b"id: 1\ndata: a\n\n") + LAST_CHUNK, Disconnect()], [NOT_FOUND], [stream(b"id: 2\ndata: b\n\n"), Silence()]]
    constants = {"consumer.subscription.REFUSED_RETRY_SECONDS": 1}
    async with ScriptedUpstream(*scripts) as upstream:
        url = f"{upstream.url}/?token=secret"
        async with consuming(tmp_path, url, constants=constants) as consumer:
            consumer.read_in_background()
            reason = (await consumer.says("the source cannot be followed; retrying slowly"))["reason"]
            assert "404" in reason
            assert "secret" not in reason
            assert "404" in await consumer.readiness_becomes(False)
            await consumer.readiness_becomes(True)
            await consumer.logs(2)
            assert [asked.header("Last-Event-ID") for asked in upstream.requests] == [None, "1", "1"]
            assert await consumer.meter("consumer_reconnections_total") == 1


async def test_block_over_the_limit_is_a_refusal_and_the_events_before_it_are_logged(tmp_path: Path) -> None:
    blocks = stream(b"id: 1\ndata: a\n\n", b"id: 2\ndata: " + b"x" * 5000 + b"\n\n")
    settings = {"CONSUMER_MAX_BLOCK_BYTES": "1000"}
    async with ScriptedUpstream([blocks, Silence()]) as upstream, consuming(tmp_path, upstream.url, **settings) as consumer:
        consumer.read_in_background()
        assert "limit is 1000" in (await consumer.says("the source cannot be followed; retrying slowly"))["reason"]
        assert "limit is 1000" in (await consumer.is_ready())[1]
        await consumer.logs(1)
        assert ids(tmp_path) == ["1"]


async def test_consumer_is_not_ready_until_its_server_is_up(tmp_path: Path) -> None:
    with refusing() as url:
        async with consuming(tmp_path, url) as consumer:
            consumer.read_in_background()
            await consumer.says("not connected")
            assert "not connected yet" in (await consumer.is_ready())[1]
            assert await consumer.stop() == 0


async def test_silent_connection_is_dropped_after_the_read_timeout(tmp_path: Path) -> None:
    script = [stream(b"id: 1\ndata: a\n\n"), Silence()]
    async with ScriptedUpstream(script) as upstream, consuming(tmp_path, upstream.url, CONSUMER_READ_TIMEOUT_SECONDS="0.2"):
        await upstream.wait_for_requests(3, GUARD_SECONDS)
        # the first may be too slow on a busy machine to get the event in time
        await eventually(lambda: True if upstream.requests[-1].header("Last-Event-ID") == "1" else None)


async def test_second_consumer_of_a_log_ends_with_a_clear_error(tmp_path: Path) -> None:
    async with replaying(Replay(1)) as replay, consuming(tmp_path, replay.url) as first:
        await first.logs(1)
        async with consuming(tmp_path, replay.url, started=False) as second:
            output, errors = await asyncio.wait_for(second.process.communicate(), GUARD_SECONDS)
            assert second.process.returncode == 1
            assert b"another consumer writes this log" in errors
            assert b"Traceback" not in errors + output


async def test_log_is_complete_when_stdout_is_closed(tmp_path: Path) -> None:
    async with replaying(Replay(300, interval=0.001)) as replay, consuming(tmp_path, replay.url) as consumer:
        transport: Any = consumer.process._transport  # type: ignore[attr-defined]
        transport.get_pipe_transport(1).close()
        assert [line["id"] for line in await consumer.logs(300)] == numbers(300)
        assert (await consumer.is_ready())[0]
        assert await consumer.stop() == 0


async def test_log_is_complete_and_the_exit_prompt_when_stdout_has_no_reader(tmp_path: Path) -> None:
    blocks = stream(*(b"id: %d\ndata: %b\n\n" % (number, b"x" * 10_000) for number in range(1, 301)))
    async with ScriptedUpstream([blocks, Silence()]) as upstream, held_stdout() as pipe:
        process = start_with_stdout(tmp_path, upstream.url, pipe, {"consumer.output.STALL_SECONDS": 0.3})
        try:
            await eventually(lambda: True if len(read_log(tmp_path)) == 300 else None)
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, GUARD_SECONDS) == 0
        finally:
            process.kill()
            process.wait()
    assert_clean(tmp_path)


@contextlib.asynccontextmanager
async def held_stdout() -> AsyncIterator[int]:
    """Yield the writing end of a pipe that no process reads."""
    reading, writing = os.pipe()
    yield writing
    os.close(reading)
    os.close(writing)


def start_with_stdout(log_dir: Path, url: str, stdout: int, constants: Mapping[str, float] | None = None) -> subprocess.Popen[bytes]:
    variables = QUICK | {"CONSUMER_SOURCE_URL": url, "CONSUMER_LOG_DIR": str(log_dir)}
    command = service_command("consumer", constants=constants)
    return subprocess.Popen(
        command, cwd=REPOSITORY, env=clean_environment(**QUICK_START, **variables), stdout=stdout, stderr=subprocess.DEVNULL
    )


async def test_every_event_on_stdout_is_durable_after_sigterm(tmp_path: Path) -> None:
    async with replaying(Replay(100_000, interval=0.0002)) as replay, consuming(tmp_path, replay.url, CONSUMER_SYNC="interval") as consumer:
        consumer.read_in_background()
        await consumer.logs(300)
        assert await consumer.stop() == 0
        assert read_log(tmp_path) == consumer.events
        assert consumer.facts[-1]["event"] == "stopped"
        assert consumer.facts[-1]["not_written_bytes"] == 0
    assert_clean(tmp_path)


def limit_file_size(process: ConsumerProcess, size: int) -> None:
    """Make each write fail, or fall short, that would make a file larger than this, as a full disk does; the error is EFBIG."""
    resource.prlimit(process.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


async def test_failing_writes_pause_reading_and_no_event_is_lost_when_they_work_again(tmp_path: Path) -> None:
    last = 600
    async with replaying(Replay(last, interval=0.0005)) as replay, consuming(tmp_path, replay.url) as consumer:
        limit_file_size(consumer, 20_001)
        consumer.read_in_background()
        fact = await consumer.says("the log cannot be written; reading pauses until it can")
        assert "File too large" in fact["reason"]
        assert "File too large" in await consumer.readiness_becomes(False)
        acknowledged = len(consumer.events)
        assert len(read_lines(tmp_path)) < last
        limit_file_size(consumer, resource.RLIM_INFINITY)
        await consumer.readiness_becomes(True)
        lines = await consumer.logs(last)
        assert await consumer.stop() == 0
        assert [line["id"] for line in lines] == numbers(last)
        assert consumer.events == lines
        assert acknowledged < last
        said = [fact for fact in consumer.facts if fact["event"].startswith("the log can")]
        assert len(said) == 2, "one for the failure, one for the recovery"
        assert replay.asked == [None]
    assert_clean(tmp_path)


async def test_consumer_with_a_full_disk_ends_quickly_and_loses_no_acknowledged_event(tmp_path: Path) -> None:
    async with replaying(Replay(600)) as replay:
        async with consuming(tmp_path, replay.url, constants={"consumer.writer.FIRST_RETRY_SECONDS": 30}) as consumer:
            limit_file_size(consumer, 20_001)
            consumer.read_in_background()
            await consumer.readiness_becomes(False)
            async with asyncio.timeout(20):  # it would try for 30
                assert await consumer.stop() == 0
            acknowledged = consumer.events
        assert read_log(tmp_path)[: len(acknowledged)] == acknowledged
        async with consuming(tmp_path, replay.url) as consumer:
            consumer.read_in_background()
            assert [line["id"] for line in await consumer.logs(600)] == numbers(600)
    assert_clean(tmp_path)


async def test_consumer_waits_until_a_full_disk_has_space(device: Path) -> None:
    last = 600
    ballast = device / "ballast"
    ballast.write_bytes(bytes(DEVICE_BYTES - 50_000))
    log_dir = device / "log"
    async with replaying(Replay(last)) as replay, consuming(log_dir, replay.url) as consumer:
        consumer.read_in_background()
        with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 100)
        assert "No space left on device" in await consumer.readiness_becomes(False)
        ballast.unlink()
        await consumer.readiness_becomes(True)
        lines = await consumer.logs(last)
        assert [line["id"] for line in lines] == numbers(last)
        assert await consumer.stop() == 0
        assert consumer.events == lines
    assert_clean(log_dir)


async def test_opening_the_log_is_retried_until_it_succeeds(tmp_path: Path) -> None:
    log_dir = tmp_path / "log"
    log_dir.write_text("a file in the way")
    async with replaying(Replay(3)) as replay, consuming(log_dir, replay.url) as consumer:
        consumer.read_in_background()
        await consumer.says("the log cannot be opened; retrying")
        assert "the log cannot be opened" in (await consumer.is_ready())[1]
        assert replay.asked == []
        log_dir.unlink()
        assert len(await consumer.logs(3)) == 3


async def test_flooding_source_gets_back_pressure_from_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    block = b"data: " + b"x" * 1000 + b"\n\n"
    async with ScriptedUpstream([EVENT_STREAM_HEAD, Flood(block)]) as upstream, consuming(tmp_path, upstream.url, plain=True) as consumer:
        limit_file_size(consumer, 100_000)
        consumer.read_in_background()
        await consumer.readiness_becomes(False)
        sent = -1
        while sent != upstream.sent_bytes:  # until nothing moves any more for a moment
            sent = upstream.sent_bytes
            await asyncio.sleep(0.5)
        assert sent < 30_000_000, "no more than kernel buffers and the pending bytes"
        assert resident_bytes(consumer.process.pid) < 150_000_000


async def test_segments_are_compressed_and_removed_while_events_come(tmp_path: Path) -> None:
    settings = {"CONSUMER_SEGMENT_MAX_BYTES": "10000", "CONSUMER_RETAIN_MAX_BYTES": "15000"}
    async with replaying(Replay(2000, interval=0.0001)) as replay, consuming(tmp_path, replay.url, **settings) as consumer:
        consumer.read_in_background()
        await eventually(lambda: True if len(consumer.events) == 2000 else None)
        # Upkeep runs when a segment is closed; the newest one may have grown to its full size since.
        await eventually(lambda: True if sum(path.stat().st_size for path in tmp_path.iterdir()) <= 25_000 else None)
        assert await consumer.stop() == 0
    kept = ids(tmp_path)
    assert kept == numbers(2000)[-len(kept) :]
    assert 0 < len(kept) < 2000
    assert_clean(tmp_path)


async def test_wrong_setting_stops_the_start_with_status_2(tmp_path: Path) -> None:
    async with consuming(tmp_path, "ftp://user:hidden@host/?hidden", started=False) as consumer:
        output, errors = await asyncio.wait_for(consumer.process.communicate(), GUARD_SECONDS)
        assert consumer.process.returncode == 2
        assert errors == b"consumer: CONSUMER_SOURCE_URL must be an absolute http or https URL, got 'ftp://host/'\n"
        assert output == b""


async def test_port_in_use_ends_the_start_with_status_1(tmp_path: Path) -> None:
    async with ScriptedUpstream([NO_CONTENT]) as upstream:
        settings = {"CONSUMER_PORT": str(upstream.port)}
        async with consuming(tmp_path, upstream.url, started=False, **settings) as consumer:
            _, errors = await asyncio.wait_for(consumer.process.communicate(), GUARD_SECONDS)
            assert consumer.process.returncode == 1
            assert b"address already in use" in errors
            assert b"Traceback" not in errors


async def test_consumer_continues_despite_a_damaged_old_segment(tmp_path: Path) -> None:
    (tmp_path / "events-0000000000000001.jsonl.zst").write_bytes(b"no zstd")
    segment(tmp_path, 7, b"")
    async with replaying(Replay(2)) as replay, consuming(tmp_path, replay.url) as consumer:
        consumer.read_in_background()
        await consumer.says("a segment of the log is damaged; run `verify` for details")
        assert [line["position"].rpartition("-")[2] for line in [json.loads(line) for line in await newest_lines(tmp_path, 2)]] == [
            "7",
            "8",
        ]


async def newest_lines(log_dir: Path, count: int) -> list[bytes]:
    return await eventually(lambda: lines if len(lines := list(list_segments(log_dir)[-1].lines())) >= count else None)
