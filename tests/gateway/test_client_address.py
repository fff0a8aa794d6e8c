"""The client's address: claims of trusted proxies are accepted, those of other peers are dropped."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.policy.trusted_proxies import TrustedProxies, client_network, plain_address
from tests.kit.downstream import Downstream
from tests.kit.gateway import serving
from tests.kit.stage import Stage
from tests.kit.upstream import Asked

PROXY = "10.0.0.1"
TRUSTED = TrustedProxies.parse("10.0.0.0/8, fd00::/8,192.0.2.99")


def client(*fields: tuple[str, str], peer: str = PROXY) -> str:
    return TRUSTED.find_client(peer, CIMultiDictProxy(CIMultiDict(fields)))


@pytest.mark.parametrize(
    ("said", "who"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("198.51.100.7, 10.9.9.9, 192.0.2.99", "198.51.100.7"),
        ("203.0.113.1, 198.51.100.7, 10.9.9.9", "198.51.100.7"),  # what is left of it was made up by it, or by its own proxy
        ("198.51.100.7:4711", "198.51.100.7"),
        ("2001:DB8::7", "2001:db8::7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("[2001:db8::7]:443, fd00::1", "2001:db8::7"),
        ("::ffff:198.51.100.7, ::ffff:10.0.0.3", "198.51.100.7"),
        ("fe80::7%eth0", "fe80::7"),
        ("10.3.3.3, 10.2.2.2", "10.3.3.3"),  # only proxies: the farthest
        (" 198.51.100.7 ,10.2.2.2 ", "198.51.100.7"),
        ("", PROXY),
        ("unknown", PROXY),
        ("198.51.100.7, unknown", PROXY),
        ("198.51.100.7, unknown, 10.2.2.2", "10.2.2.2"),
        ("198.51.100.7, ", PROXY),
        ("198.51.100.7, <script>", PROXY),
        ("198.51.100.256", PROXY),
        ("[2001:db8::7", PROXY),
        ("[2001:db8::7]x", PROXY),
        (", ".join(["198.51.100.7", *["10.1.1.1"] * 1000]), "10.1.1.1"),  # no deployment has 1,000 proxies
    ],
)
def test_client_is_the_first_from_the_right_that_is_no_proxy(said: str, who: str) -> None:
    assert client(("X-Forwarded-For", said)) == who


@pytest.mark.parametrize(
    ("said", "who"),
    [
        ("for=198.51.100.7", "198.51.100.7"),
        ('For="198.51.100.7:4711";proto=https;host="a.example"', "198.51.100.7"),
        ('for=198.51.100.7;by=10.0.0.2, for="[fd00::2]:80";host="a,b;for=1.1.1.1"', "198.51.100.7"),
        ('proto=http;for="[2001:db8::7]"', "2001:db8::7"),
        ("for=203.0.113.1, for=198.51.100.7, for=10.1.1.1", "198.51.100.7"),
        ('for="198.51.\\100.7"', "198.51.100.7"),
        ("for=_hidden, for=10.1.1.1", "10.1.1.1"),
        ("for=198.51.100.7, for=_hidden", PROXY),
        ("for=198.51.100.7, proto=https", PROXY),  # the proxy does not say
        ("for=198.51.100.7;", "198.51.100.7"),
        ('for="', PROXY),
        ('for=203.0.113.1;x=", for=198.51.100.7', PROXY),  # an open quote must not hide what a proxy adds
        ('for=203.0.113.1;x=", for="[2001:db8::7]"', PROXY),
        ("for=[2001:db8::7]", PROXY),  # not quoted
        ("nonsense", PROXY),
    ],
)
def test_forwarded_is_read_as_its_standard_says(said: str, who: str) -> None:
    assert client(("Forwarded", said)) == who


def test_several_fields_are_one_chain() -> None:
    assert (
        client(("X-Forwarded-For", "203.0.113.1"), ("x-forwarded-for", "198.51.100.7"), ("X-Forwarded-For", "10.1.1.1")) == "198.51.100.7"
    )
    assert client(("Forwarded", "for=203.0.113.1"), ("forwarded", "for=198.51.100.7")) == "198.51.100.7"


def test_field_that_the_proxy_forwards_unchanged_does_not_name_another_client() -> None:
    victim, attacker = "203.0.113.1", "198.51.100.7"
    assert client(("Forwarded", f"for={victim}"), ("X-Forwarded-For", attacker)) == PROXY
    assert client(("Forwarded", f"for={attacker}"), ("X-Forwarded-For", victim)) == PROXY
    assert client(("Forwarded", "for=10.7.7.7"), ("X-Forwarded-For", attacker)) == attacker
    assert client(("Forwarded", f"for={attacker}"), ("X-Forwarded-For", "10.7.7.7, fd00::9")) == attacker
    assert client(("Forwarded", f"for={attacker}"), ("X-Forwarded-For", f"{victim}, {attacker}")) == attacker
    assert client(("Forwarded", f'x=", for={attacker}'), ("X-Forwarded-For", victim)) == PROXY
    assert client(("Forwarded", f"for={victim}"), ("X-Forwarded-For", f"{victim}, unknown")) == PROXY


_PARTS = ["for=", "by=", '"', ",", ";", "\\", " ", "=", "[", "]", ":", "203.0.113.1", "10.0.0.9", "2001:db8::1", "_x", "unknown"]
CLAIM = st.lists(st.sampled_from([*_PARTS, "for=203.0.113.1", 'x="', 'for="[2001:db8::1]:7"'])).map("".join)


@given(CLAIM, CLAIM)
def test_client_cannot_claim_another_address(one: str, other: str) -> None:
    real = "198.51.100.7"
    appended = client(("Forwarded", one), ("X-Forwarded-For", f"{other}, {real}"))
    assert appended in (real, PROXY)
    for entry in (f"for={real}", f'for="{real}";host="a";proto=http', f'proto=http;for="{real}:80"'):
        assert client(("Forwarded", f"{one}, {entry}"), ("X-Forwarded-For", other)) in (real, PROXY)
        assert client(("Forwarded", one), ("Forwarded", entry), ("X-Forwarded-For", other)) in (real, PROXY)


def test_no_proxy_is_trusted_by_default() -> None:
    no_proxies = TrustedProxies()
    assert not no_proxies.trust("127.0.0.1")
    assert [TRUSTED.trust(address) for address in ("10.255.0.1", "192.0.2.99", "fd12::1", "::ffff:10.0.0.1")] == [True] * 4
    assert [TRUSTED.trust(address) for address in ("11.0.0.1", "192.0.2.98", "2001:db8::1", "unknown", "")] == [False] * 5


@pytest.mark.parametrize("text", ["10.0.0.0/33", "10.0.0.1/8", "proxy.example", "10.0.0.1 10.0.0.2", "*"])
def test_invalid_network_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be addresses such as 192.0.2.7 or networks such as 10.0.0.0/8") as refused:
        TrustedProxies.parse(f"127.0.0.1,{text}")
    assert repr(text) in str(refused.value)


def test_address_has_one_form() -> None:
    given = ["192.0.2.7", "::ffff:192.0.2.7", "2001:DB8:0::7", "fe80::7%eth0", "unknown"]
    assert [plain_address(address) for address in given] == ["192.0.2.7", "192.0.2.7", "2001:db8::7", "fe80::7", "unknown"]


def test_clients_are_counted_by_address_and_in_ipv6_by_network() -> None:
    given = ["192.0.2.7", "2001:db8::7", "2001:db8:0:0:ffff::7", "2001:db8:0:1::7", "unknown", "a:b"]
    counted = ["192.0.2.7", "2001:db8::/64", "2001:db8::/64", "2001:db8:0:1::/64", "unknown", "a:b"]
    assert [client_network(address) for address in given] == counted


CLAIMS = [
    ("Forwarded", "for=198.51.100.7"),
    ("X-Forwarded-For", "198.51.100.7"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "public.example"),
    ("X-Forwarded-Port", "443"),
    ("X-Forwarded-Prefix", "/below"),
    ("X-Real-IP", "198.51.100.7"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage() -> AsyncIterator[Stage]:
    async with Stage() as stage:
        yield stage


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def port(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[int]:
    directory: Path = tmp_path_factory.mktemp("client")
    async with serving([{"path": "/", "upstream": stage.url}], directory, trusted_proxies="127.0.0.2", max_streams_per_client=1) as port:
        yield port


async def forwarded(stage: Stage, port: int, source: str, claims: Sequence[tuple[str, str]] = CLAIMS) -> Asked:
    """Return the request that the upstream gets if a client at `source` sends these claims."""
    scene = stage.scene(b"HTTP/1.1 204 No Content\r\n\r\n")
    async with Downstream(port, source=source) as downstream:
        await downstream.ask("/", headers=[*scene.headers, *claims])
        assert (await downstream.answer()).head.status == 204
    return await scene.asked()


@pytest.mark.asyncio(loop_scope="module")
async def test_claims_of_untrusted_peers_are_dropped(stage: Stage, port: int) -> None:
    asked = await forwarded(stage, port, "127.0.0.3")
    assert asked.header("X-Forwarded-For") == "127.0.0.3"
    assert (asked.header("Forwarded") or "").startswith("for=127.0.0.3;")
    assert (asked.header("X-Forwarded-Proto"), asked.header("X-Forwarded-Host")) == ("http", f"127.0.0.1:{port}")
    assert [asked.header(name) for name in ("X-Forwarded-Port", "X-Forwarded-Prefix", "X-Real-IP")] == [None] * 3


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("spelled", ["x-real-ip", "X-FORWARDED-PORT"])
async def test_single_claim_is_dropped_however_it_is_spelled(stage: Stage, port: int, spelled: str) -> None:
    asked = await forwarded(stage, port, "127.0.0.3", [(spelled, "198.51.100.7")])
    assert asked.header(spelled) is None


@pytest.mark.asyncio(loop_scope="module")
async def test_claims_of_a_trusted_proxy_are_forwarded_with_its_own_address(stage: Stage, port: int) -> None:
    asked = await forwarded(stage, port, "127.0.0.2")
    assert asked.header("X-Forwarded-For") == "198.51.100.7, 127.0.0.2"
    assert (asked.header("Forwarded") or "").startswith("for=198.51.100.7, for=127.0.0.2;")
    assert (asked.header("X-Forwarded-Proto"), asked.header("X-Forwarded-Host")) == ("https", "public.example")
    assert (asked.header("X-Forwarded-Prefix"), asked.header("X-Real-IP")) == ("/below", "198.51.100.7")


@pytest.mark.asyncio(loop_scope="module")
async def test_fields_that_contradict_each_other_are_not_passed_on(stage: Stage, port: int) -> None:
    scene = stage.scene(b"HTTP/1.1 204 No Content\r\n\r\n")
    async with Downstream(port, source="127.0.0.2") as downstream:
        await downstream.ask("/", headers=[*scene.headers, *CLAIMS, ("Forwarded", 'x="')])
        await downstream.answer()
    asked = await scene.asked()
    assert asked.header("X-Forwarded-For") == "127.0.0.2"
    assert (asked.header("Forwarded") or "").startswith("for=127.0.0.2;")
    assert asked.header("X-Forwarded-Proto") == "https"


@pytest.mark.asyncio(loop_scope="module")
async def test_limits_are_for_the_client_behind_the_proxy(stage: Stage, port: int) -> None:
    scene = stage.scene(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
    async with (
        Downstream(port, source="127.0.0.2") as first,
        Downstream(port, source="127.0.0.2") as other,
        Downstream(port, source="127.0.0.2") as second,
    ):
        await first.ask("/", headers=[*scene.headers, ("X-Forwarded-For", "2001:db8::1")])
        assert (await first.answer()).head.status == 200
        await other.ask("/", headers=[*scene.headers, ("X-Forwarded-For", "2001:db8:0:1::1")])
        assert (await other.answer()).head.status == 200
        await second.ask("/", headers=[*scene.headers, ("X-Forwarded-For", "2001:db8::2")])
        answer = await second.answer()
        assert answer.head.status == 429
        assert b"2001:db8::/64 has 1 streams open, the limit is 1" in await answer.to_end()
