"""Test that quotes hide the user's secrets, also when the server repeats them."""

import base64

import pytest
from yarl import URL

from gateway.doctor.quoting import Quote, secrets_of_headers, secrets_of_url, shown_url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://example.org/events", "http://example.org/events"),
        ("http://user:pass@example.org:8080/a/b?token=abc&from=&flag#part", "http://example.org:8080/a/b?token=…&from=&…"),
    ],
)
def test_shown_url_has_no_credentials_and_no_query_values(url: str, shown: str) -> None:
    assert shown_url(URL(url)) == shown


def test_quote_hides_secrets_of_a_url_raw_and_decoded() -> None:
    quote = Quote(secrets_of_url(URL("http://us%65r:p%40ss@example.org/?token=a%2Fb%2Bcd&q=two+words", encoded=True)))
    for word in ("us%65r", "user", "p%40ss", "p@ss", "a%2Fb%2Bcd", "a/b+cd", "two words"):
        assert quote(f"<{word}>") == "<***>"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("Authorization", "Bearer eyJhbGciOi.J9", ["eyJhbGciOi.J9", "Bearer eyJhbGciOi.J9"]),
        ("Authorization", "Basic " + base64.b64encode(b"anna:pa55word").decode(), ["anna", "pa55word", "anna:pa55word"]),
        ("Cookie", "session=abcdef; theme=darkmode", ["abcdef", "darkmode", "session=abcdef; theme=darkmode"]),
        ("X-Api-Key", "k-123456", ["k-123456"]),
    ],
)
def test_quote_hides_secrets_of_header_fields_whole_and_in_parts(name: str, value: str, words: list[str]) -> None:
    quote = Quote(secrets_of_headers([(name, value)]))
    for word in words:
        assert quote(f"<{word}>") == "<***>"
    assert quote("Bearer realm, Basic realm") == "Bearer realm, Basic realm"


def test_quote_shows_fields_that_hold_no_secret() -> None:
    assert (
        Quote(secrets_of_headers([("Accept", "text/event-stream"), ("Last-Event-ID", "41")]))("text/event-stream 41")
        == "text/event-stream 41"
    )


def test_quote_hides_short_secrets_only_as_whole_words() -> None:
    assert Quote(["5"])("5 of 15 at 5.2, limit=5") == "*** of 15 at 5.2, limit=***"


def test_quote_shortens_text_and_escapes_control_characters() -> None:
    assert Quote()("a\x1b[31m\r\n\x00七\u2028", 80) == r"a\x1b[31m\r\n\x00七\u2028"
    assert Quote()(b"caf\xe9") == r"caf\xe9"
    assert Quote()("x" * 100, 10) == "x" * 9 + "…"


def test_mask_keeps_the_length_of_the_data() -> None:
    assert Quote(["secret"]).mask(b"a secret word") == b"a ****** word"
    assert Quote().mask(b"a secret word") == b"a secret word"
