"""The `id:` line that a subscriber gets ahead of its first event, so that it can resume behind an event without an ID."""

import pytest

from gateway.streams.stamping import place_ahead
from gateway.streams.subscriber import Subscriber
from tests.gateway.scripted_transport import Audience, ScriptedTransport, transport_of
from tests.kit.waiting import settle, until

LINE = b"id: 5\n"


@pytest.mark.parametrize(
    ("blocks", "placed", "left"),
    [
        (b"data: a\n\n", LINE + b"data: a\n\n", b""),
        (b"data: a\n\ndata: b\n\n", LINE + b"data: a\n\ndata: b\n\n", b""),
        (b"event: x\r\ndata: a\r\n\r\n", LINE + b"event: x\r\ndata: a\r\n\r\n", b""),
        (b": hi\n\ndata: a\n\n", b": hi\n\n" + LINE + b"data: a\n\n", b""),
        (b"\n: hi\n\nretry: 1\n\n", b"\n: hi\n\nretry: 1\n\n", LINE),
        (b"id: 6\ndata: a\n\ndata: b\n\n", b"id: 6\ndata: a\n\ndata: b\n\n", b""),
        (b"data: a\nid: 6\n\n", b"data: a\nid: 6\n\n", b""),
        (b"id: 6\n\ndata: b\n\n", b"id: 6\n\ndata: b\n\n", b""),
        (b"id: 6\0\ndata: a\n\n", LINE + b"id: 6\0\ndata: a\n\n", b""),
        (b"data\n\n", LINE + b"data\n\n", b""),
    ],
)
def test_line_stands_at_the_head_of_the_first_block_with_data_that_has_no_id(blocks: bytes, placed: bytes, left: bytes) -> None:
    assert place_ahead(LINE, blocks) == (placed, left)


def joined(
    audience: Audience, id: str = "5", *, takes: int | None = None, takes_retry: bool = True
) -> tuple[Subscriber, ScriptedTransport]:
    subscriber = audience.subscriber(takes=takes, takes_retry=takes_retry)
    subscriber.send_id_ahead(id)
    audience.fan_out.join(subscriber)
    return subscriber, transport_of(subscriber)


async def test_new_subscribers_get_the_line_once_and_then_the_common_blocks() -> None:
    audience = Audience()
    audience.fan_out.append(b"id: 5\ndata: a\n\n", "5")
    _, old = audience.join()
    newcomers = [joined(audience) for _ in range(3)]
    for block in (b": hi\n\n", b"data: b\n\n", b"data: c\n\n"):
        audience.fan_out.append(block)
        await settle()
    assert old.body == b": hi\n\ndata: b\n\ndata: c\n\n"
    for subscriber, transport in newcomers:
        assert transport.body == b": hi\n\nid: 5\ndata: b\n\ndata: c\n\n"
        assert (subscriber.blocks_out, subscriber.bytes_out) == (3, len(transport.body))


async def test_all_go_on_as_one_cohort_when_newcomers_have_had_their_line() -> None:
    audience = Audience()
    for number in range(50):
        joined(audience, str(number))
        audience.fan_out.append(b"id: %d\ndata: a\n\n" % number, str(number))
        await settle()
    for _ in range(3):
        audience.fan_out.append(b"data: b\n\n")
        await settle()
    assert [len(cohort) for cohort in audience.fan_out._cohorts.occupied] == [50]


async def test_client_that_may_look_for_data_where_a_block_begins_gets_no_line() -> None:
    audience = Audience()
    _, transport = joined(audience, takes_retry=False)
    audience.fan_out.append(b"data: b\n\n")
    await settle()
    assert transport.body == b"data: b\n\n"


async def test_heartbeats_ahead_of_the_first_event_are_blocks_and_behind_the_line_they_are_lines() -> None:
    audience = Audience(heartbeat_ticks=2)
    _, transport = joined(audience)
    await until(lambda: len(transport.writes) >= 2)
    assert set(transport.writes) == {b":\n\n"}
    audience.fan_out.append(b"data: b\n\n")
    await until(lambda: transport.writes[-1] == b":\n")
    assert transport.body.lstrip(b":\n").startswith(b"id: 5\ndata: b\n\n:\n")


async def test_newcomer_that_stalls_before_its_first_event_gets_the_line_when_it_goes_on() -> None:
    audience = Audience()
    subscriber, transport = joined(audience)
    subscriber.pause()
    audience.fan_out.append(b": hi\n\n")
    audience.fan_out.append(b"data: b\n\n")
    await settle()
    assert transport.body == b""
    subscriber.resume()
    audience.fan_out.append(b"data: c\n\n")
    await settle()
    assert transport.body == b": hi\n\nid: 5\ndata: b\n\ndata: c\n\n"
