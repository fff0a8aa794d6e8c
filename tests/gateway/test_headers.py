"""Which header fields cross the gateway, and what it adds."""

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.http.headers import HOP_BY_HOP, announce_client, apply_rules, end_to_end

Fields = list[tuple[str, str]]


def forwarded(*fields: tuple[str, str]) -> Fields:
    return list(end_to_end(CIMultiDictProxy(CIMultiDict(fields))).items())


def announced(fields: Fields, client: str = "192.0.2.7", scheme: str = "http", host: str = "example.org:8080") -> CIMultiDict[str]:
    announcing = CIMultiDict(fields)
    announce_client(announcing, client=client, scheme=scheme, host=host)
    return announcing


def as_aiohttp_reads(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


@pytest.mark.parametrize("name", HOP_BY_HOP)
def test_hop_by_hop_field_is_dropped_in_any_spelling(name: str) -> None:
    assert forwarded((name.lower(), "a"), ("X-Kept", "1"), (name.upper(), "b")) == [("X-Kept", "1")]


def test_hop_by_hop_fields_are_those_of_the_standards() -> None:
    assert {name.lower() for name in HOP_BY_HOP} == {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }


@pytest.mark.parametrize("connection", ["x-secret, Close", "close,X-SECRET", " ,x-secret ,, "])
def test_field_that_connection_names_is_dropped(connection: str) -> None:
    assert forwarded(("Connection", connection), ("X-Secret", "1"), ("x-secret", "2"), ("Close", "3"), ("X", "4"))[-1] == ("X", "4")
    assert "x-secret" not in [name.lower() for name, _ in forwarded(("Connection", connection), ("X-Secret", "1"), ("x-secret", "2"))]


def test_every_connection_field_counts() -> None:
    assert forwarded(("Connection", "a"), ("A", "1"), ("B", "2"), ("connection", "b"), ("C", "3")) == [("C", "3")]


def test_connection_may_name_an_absent_field() -> None:
    assert forwarded(("Connection", "x-absent, keep-alive"), ("A", "1")) == [("A", "1")]


def test_order_spelling_and_repetition_are_kept() -> None:
    fields = [
        ("x-B", "1"),
        ("Accept", "text/event-stream"),
        ("X-b", "2"),
        ("Set-Cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("x-B", "1"),
        ("A", ""),
    ]
    assert forwarded(("TE", "trailers"), *fields[:3], ("Connection", "te"), *fields[3:]) == fields


def test_message_that_was_read_is_not_changed() -> None:
    fields = CIMultiDict([("Connection", "a"), ("A", "1"), ("B", as_aiohttp_reads(b"\xff"))])
    before = list(fields.items())
    end_to_end(CIMultiDictProxy(fields))
    assert list(fields.items()) == before


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"caf\xe9", "café"),  # Latin-1
        ("七夕".encode(), "七夕"),  # UTF-8
        (b"\xe4\xb8", "\xe4\xb8"),  # UTF-8 cut short
        (b"\x80\xff", "\x80\xff"),
        (b"plain", "plain"),
    ],
)
def test_value_that_is_not_ascii_can_be_written_again(raw: bytes, value: str) -> None:
    ((name, got),) = forwarded(("x-Name", as_aiohttp_reads(raw)))
    assert (name, got) == ("x-Name", value)
    got.encode()  # aiohttp writes UTF-8; a lone surrogate would raise


def test_repeated_field_with_a_value_that_is_not_ascii_keeps_all_values_in_order() -> None:
    fields = forwarded(("X", "1"), ("X", as_aiohttp_reads(b"\xe9")), ("Y", "y"), ("X", as_aiohttp_reads("é".encode())), ("X", "4"))
    assert [value for name, value in fields if name == "X"] == ["1", "é", "é", "4"]
    assert ("Y", "y") in fields


def test_hop_by_hop_field_with_a_value_that_is_not_ascii_is_dropped() -> None:
    assert forwarded(("Upgrade", as_aiohttp_reads(b"\xe9")), ("Connection", "x"), ("X", as_aiohttp_reads(b"\xe9"))) == []


def test_client_is_announced() -> None:
    assert list(announced([("Accept", "*/*")]).items()) == [
        ("Accept", "*/*"),
        ("Via", "1.1 gateway"),
        ("Forwarded", 'for=192.0.2.7;host="example.org:8080";proto=http'),
        ("X-Forwarded-For", "192.0.2.7"),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Host", "example.org:8080"),
    ]


def test_ipv6_client_is_in_brackets_and_quotes_in_forwarded_and_bare_in_x_forwarded_for() -> None:
    fields = announced([], client="2001:db8::7", scheme="https", host="[2001:db8::1]")
    assert fields["Forwarded"] == 'for="[2001:db8::7]";host="[2001:db8::1]";proto=https'
    assert (fields["X-Forwarded-For"], fields["X-Forwarded-Proto"]) == ("2001:db8::7", "https")


def test_chain_of_proxies_in_front_is_continued() -> None:
    fields = announced(
        [
            ("via", "1.0 first, 1.1 second"),
            ("Via", "2 third"),
            ("Forwarded", "for=198.51.100.1"),
            ("forwarded", "for=198.51.100.2"),
            ("X-Forwarded-For", "198.51.100.1, 198.51.100.2"),
        ]
    )
    assert fields.getall("Via") == ["1.0 first, 1.1 second, 2 third, 1.1 gateway"]
    assert fields.getall("Forwarded") == ['for=198.51.100.1, for=198.51.100.2, for=192.0.2.7;host="example.org:8080";proto=http']
    assert fields.getall("X-Forwarded-For") == ["198.51.100.1, 198.51.100.2, 192.0.2.7"]


def test_scheme_and_host_that_a_proxy_in_front_has_seen_stay() -> None:
    fields = announced([("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "public.example")])
    assert (fields.getall("X-Forwarded-Proto"), fields.getall("X-Forwarded-Host")) == (["https"], ["public.example"])
    assert fields["Forwarded"].endswith('host="example.org:8080";proto=http')


def test_host_cannot_break_out_of_its_quotes() -> None:
    assert announced([], host='a";for=1\\')["Forwarded"] == 'for=192.0.2.7;host="a\\";for=1\\\\";proto=http'


def test_rule_sets_a_field_once_whatever_there_was() -> None:
    fields = CIMultiDict([("authorization", "Basic a"), ("A", "1"), ("Authorization", "Basic b")])
    apply_rules(fields, {"Authorization": "Bearer x", "X-New": "2"})
    assert fields.getall("Authorization") == ["Bearer x"]
    assert (fields["A"], fields["X-New"], len(fields)) == ("1", "2", 3)


def test_rule_with_an_empty_value_removes_the_field() -> None:
    fields = CIMultiDict([("cookie", "a"), ("A", "1"), ("Cookie", "b")])
    apply_rules(fields, {"COOKIE": "", "X-Absent": ""})
    assert list(fields.items()) == [("A", "1")]


def test_no_rules_change_nothing() -> None:
    fields = CIMultiDict([("A", "1"), ("a", "2")])
    apply_rules(fields, {})
    assert list(fields.items()) == [("A", "1"), ("a", "2")]
