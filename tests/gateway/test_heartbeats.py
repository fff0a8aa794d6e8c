"""Which heartbeat a subscriber gets: by what its own connection has shown, whatever the others have."""

import pytest

from gateway.streams.heartbeats import Shown, shows_id
from tests.gateway.scripted_transport import Audience, ScriptedTransport
from tests.kit.waiting import settle

PLAIN, NUMBERED = b"data: 1\n\n", b"data: 1\nid: 7\n\n"
BLOCK, LINE = b":\n\n", b":\n"


@pytest.mark.parametrize(
    "data", [NUMBERED, b"id: 7\n", b"id:7\r\r", b"data: 1\rid:  7\r\r", b"data\n\ndata\r\nid: 7\r\n\r\n", b"id:7\nid\n\n"]
)
def test_field_that_sets_an_id_shows_it(data: bytes) -> None:
    assert shows_id(data)


@pytest.mark.parametrize(
    "data", [b"", PLAIN, b"id\n\n", b"id:\n\n", b"id: 7\0\n\n", b"ids: 7\n\n", b"data: id: 7\n\n", b": id: 7\n\n", b" id: 7\n\n"]
)
def test_all_else_shows_none(data: bytes) -> None:
    assert not shows_id(data)


def test_heartbeat_is_a_block_until_an_id_was_shown_and_between_blocks() -> None:
    shown = Shown.BLOCKS
    assert shown.heartbeat == BLOCK
    assert shown.then(PLAIN).heartbeat == BLOCK
    assert shown.then(b"retry: 5\n", whole=False).heartbeat == LINE
    assert shown.then(b"retry: 5\n", whole=False).then(PLAIN).heartbeat == BLOCK
    assert shown.then(NUMBERED).heartbeat == LINE
    assert shown.then(NUMBERED).then(PLAIN).heartbeat == LINE


class Beating(Audience):
    """An audience whose wheel turns when the test says so."""

    def __init__(self) -> None:
        super().__init__(heartbeat_ticks=2, tick_seconds=3600)
        self._ticks = 1
        self.wheel._elapsed = lambda: self._ticks  # type: ignore[method-assign]

    def beat(self) -> None:
        for _ in range(3):
            self._ticks += 1
            self.wheel._turn()

    def heartbeats(self, *transports: ScriptedTransport) -> list[bytes]:
        """Return the heartbeat of each connection when nothing else is sent."""
        before = [len(transport.body) for transport in transports]
        self.beat()
        return [transport.body[begin:] for transport, begin in zip(transports, before, strict=True)]


async def test_state_of_each_connection_follows_its_bytes() -> None:
    audience = Beating()
    (_, first), (_, resumed) = audience.join(), audience.join(resumes=True)
    assert audience.heartbeats(first, resumed) == [BLOCK, LINE]
    audience.fan_out.append(PLAIN)
    await settle()
    assert audience.heartbeats(first, resumed) == [BLOCK, LINE]
    audience.fan_out.append(NUMBERED, "7")
    await settle()
    _, late = audience.join()
    _, replayed = audience.join(0)
    await settle()
    assert audience.heartbeats(first, resumed, late, replayed) == [LINE, LINE, BLOCK, LINE]
    audience.fan_out.append(NUMBERED, "8")
    await settle()
    assert audience.heartbeats(first, resumed, late, replayed) == [LINE] * 4
    assert replayed.body.replace(LINE, b"") == PLAIN + NUMBERED * 2
    assert late.body.replace(BLOCK, b"").replace(b"\n" + LINE, b"\n") == NUMBERED


async def test_heartbeat_ends_no_block_whose_first_line_was_sent_ahead() -> None:
    audience = Beating()
    told = audience.subscriber(takes_retry=True)
    told.send_retry_ahead(5)
    audience.fan_out.join(told)
    transport = told._transport
    assert isinstance(transport, ScriptedTransport)
    _, other = audience.join()
    assert audience.heartbeats(transport, other) == [LINE, BLOCK]
    audience.fan_out.append(PLAIN)
    await settle()
    assert audience.heartbeats(transport, other) == [BLOCK, BLOCK]
    assert transport.body == b"retry: 5\n" + LINE + PLAIN + BLOCK


async def test_subscribers_in_the_same_state_share_a_cohort() -> None:
    """However many waves of newcomers there were, blocks are written to all of them in one turn."""
    audience = Beating()
    transports = []
    for number in range(20):
        transports.append(audience.join()[1])
        audience.fan_out.append(NUMBERED, str(number))
        await settle()
    assert len(audience.fan_out._cohorts.all) == 2  # one of them is empty, for the next newcomers
    assert [transport.body for transport in transports] == [NUMBERED * (20 - number) for number in range(20)]


async def test_slow_subscriber_returns_to_a_cohort_of_its_kind() -> None:
    audience = Beating()
    (slow, transport), (quick, other) = audience.join(), audience.join()
    slow.pause()  # before any ID, which it then gets on its own
    for number in range(3):
        audience.fan_out.append(NUMBERED, str(number))
        await settle()
    slow.resume()
    await settle()
    assert slow.cohort is quick.cohort is not None
    assert audience.heartbeats(transport, other) == [LINE, LINE]
    assert transport.body == other.body == NUMBERED * 3 + LINE
