"""The consumer's settings, and the errors that stop its start."""

from pathlib import Path

import pytest

from consumer.__main__ import main
from consumer.settings import ConsumerSettings
from consumer.source import hide_secrets, strip_secrets
from service.settings import SettingsError, read_settings


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in ConsumerSettings.model_fields:
        monkeypatch.delenv(f"CONSUMER_{field.upper()}", raising=False)


def test_defaults_are_the_documented_ones() -> None:
    settings = read_settings(ConsumerSettings)
    assert (settings.host, settings.port) == ("127.0.0.1", 8082)
    assert settings.source_url == "http://127.0.0.1:8080/"
    assert settings.log_dir == Path("data/consumer")
    assert settings.sync == "always"


def test_every_setting_is_described() -> None:
    assert all(field.description and field.description[-1] in ".)" for field in ConsumerSettings.model_fields.values())


def test_headers_are_read_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSUMER_SOURCE_HEADERS", '{"Authorization": "Bearer hidden"}')
    settings = read_settings(ConsumerSettings)
    assert settings.headers() == {"Authorization": "Bearer hidden"}
    assert "hidden" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("CONSUMER_PROT", "1", "CONSUMER_PROT is not a setting; the nearest is CONSUMER_PORT"),
        ("CONSUMER_PORT", "x", "CONSUMER_PORT='x'"),
        ("CONSUMER_PORT", "65536", "CONSUMER_PORT='65536'"),
        ("CONSUMER_SYNC", "sometimes", "CONSUMER_SYNC='sometimes'"),
        ("CONSUMER_SEGMENT_MAX_BYTES", "0", "CONSUMER_SEGMENT_MAX_BYTES='0'"),
        (
            "CONSUMER_SOURCE_URL",
            "ftp://user:hidden@host/?hidden",
            "CONSUMER_SOURCE_URL must be an absolute http or https URL, got 'ftp://host/'",
        ),
        ("CONSUMER_SOURCE_URL", "http://", "must be an absolute http or https URL"),
        ("CONSUMER_SOURCE_URL", "http://[hidden", "must be an absolute http or https URL"),
        ("CONSUMER_SOURCE_HEADERS", "hidden", "CONSUMER_SOURCE_HEADERS must be a JSON object of strings"),
        ("CONSUMER_SOURCE_HEADERS", '["hidden"]', "CONSUMER_SOURCE_HEADERS must be a JSON object of strings"),
        ("CONSUMER_SOURCE_HEADERS", '{"a": ["hidden"]}', "CONSUMER_SOURCE_HEADERS must be a JSON object of strings"),
        ("CONSUMER_SOURCE_HEADERS", '{"X-Key": "hidden\\n"}', "header 'X-Key' must not contain a control character"),
    ],
)
def test_invalid_setting_is_refused_without_showing_secrets(monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as refused:
        read_settings(ConsumerSettings)
    assert said in str(refused.value)
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://user:password@host:81/path?token=1#part", "http://host:81/path"),
        ("https://[::1]:81/", "https://[::1]:81/"),
        ("http://host", "http://host"),
        ("host/path", "host/path"),
        ("http://[broken", "(a URL that cannot be read)"),
    ],
)
def test_url_is_shown_without_credentials_query_and_fragment(url: str, shown: str) -> None:
    assert strip_secrets(url) == shown
    if "://" in url:
        assert hide_secrets(f"{url} is away, and '{url}' too") == f"{shown} is away, and '{shown}' too"


def test_help_lists_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert all(f"CONSUMER_{field.upper()}" in said for field in ConsumerSettings.model_fields)


@pytest.mark.parametrize(
    "arguments", [["verify", "nowhere"], ["tail", "nowhere"], ["verify"], ["verify", ".", "--strange"], ["tail", "-n-1", "."]]
)
def test_wrong_usage_is_status_2(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    try:
        status: object = main(arguments)
    except SystemExit as ended:
        status = ended.code
    assert status == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err
