"""Settings of the gateway as a whole."""

import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from gateway.__main__ import main
from gateway.policy.settings import Settings
from service.settings import SettingsError, describe_settings, read_settings
from tests.kit.gateway_process import start_refused


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start each test from an environment without settings."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"GATEWAY_{name.upper()}", raising=False)


def test_defaults_are_the_documented_ones() -> None:
    settings = read_settings(Settings, {})
    assert (settings.host, settings.port) == ("127.0.0.1", 8080)
    assert (settings.admin_host, settings.admin_port) == ("127.0.0.1", 8081)
    assert settings.upstream == "http://127.0.0.1:8000"
    assert settings.config is None
    assert (settings.max_streams, settings.max_streams_per_client) == (10_000, 2_000)


def test_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_PORT", "9000")
    monkeypatch.setenv("GATEWAY_CONFIG", "routes.toml")
    monkeypatch.setenv("GATEWAY_DRAIN_SECONDS", "2.5")
    monkeypatch.setenv("GATEWAY_LOG_LEVEL", "debug")
    settings = read_settings(Settings)
    assert (settings.port, settings.config, settings.drain_seconds, settings.log_level) == (9000, Path("routes.toml"), 2.5, "debug")


@pytest.mark.parametrize("name", Settings.model_fields)
def test_empty_variable_counts_as_not_set(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = read_settings(Settings)
    monkeypatch.setenv(f"GATEWAY_{name.upper()}", "")
    assert read_settings(Settings) == defaults


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("GATEWAY_UPSTREAMS", "GATEWAY_UPSTREAM"),
        ("GATEWAY_MAX_STREAM", "GATEWAY_MAX_STREAMS"),
        ("gateway_prot", "GATEWAY_PORT"),
        ("GATEWAY_DRAIN", "GATEWAY_DRAIN_SECONDS"),
    ],
)
def test_unknown_variable_is_refused_with_the_nearest_name(variable: str, nearest: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        read_settings(Settings, {variable: "1"})
    assert str(refusal.value) == f"{variable} is not a setting; the nearest is {nearest}"


def test_each_unknown_variable_is_named() -> None:
    with pytest.raises(SettingsError) as refusal:
        read_settings(Settings, {"GATEWAY_HOTS": "h", "GATEWAY_PROT": "1", "GATEWAY_HOST": "h"})
    assert [line.split(" ")[0] for line in str(refusal.value).splitlines()] == ["GATEWAY_HOTS", "GATEWAY_PROT"]


@pytest.mark.parametrize(
    "variable",
    [
        "GATEWAY_PYTHON",
        "GATEWAY_SERVICE_HOST",
        "GATEWAY_SERVICE_PORT",
        "GATEWAY_SERVICE_PORT_HTTP",
        "GATEWAY_PORT_8080_TCP",
        "GATEWAY_PORT_8080_TCP_ADDR",
        "GATEWAY_PORT_8080_TCP_PORT",
        "GATEWAY_PORT_8080_TCP_PROTO",
        "GATEWAYS_PORT",
        "PRODUCER_PORT",
    ],
)
def test_variable_of_another_program_is_ignored(variable: str) -> None:
    assert read_settings(Settings, {variable: "x"}) == read_settings(Settings, {})


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("GATEWAY_PORT", "http", "valid integer"),
        ("GATEWAY_PORT", "65536", "less than or equal to 65535"),
        ("GATEWAY_ADMIN_PORT", "-1", "greater than or equal to 0"),
        ("GATEWAY_WORKERS", "0", "greater than or equal to 1"),
        ("GATEWAY_WORKERS", "1025", "less than or equal to 1024"),
        ("GATEWAY_WORKER_SILENCE_SECONDS", "0.5", "must be 0 or at least 1"),
        ("GATEWAY_DRAIN_SECONDS", "-1", "greater than or equal to 0"),
        ("GATEWAY_DRAIN_SECONDS", "nan", "finite number"),
        ("GATEWAY_DRAIN_SECONDS", "inf", "finite number"),
        ("GATEWAY_DRAIN_SECONDS", "5s", "valid number"),
        ("GATEWAY_ADMIN_HOSTS", "gateway.example:8081", "without scheme and port"),
        ("GATEWAY_PUBLIC_URL", "events.example", "must be a URL like https://host"),
        ("GATEWAY_PUBLIC_URL", "https://events.example?a=b", "without query or credentials"),
        ("GATEWAY_PUBLIC_URL", "https://events.example; script-src *", "must be a URL like https://host"),
        ("GATEWAY_MAX_STREAMS", "0", "greater than or equal to 1"),
        ("GATEWAY_MAX_STREAMS_PER_CLIENT", "0", "greater than or equal to 1"),
        ("GATEWAY_MAX_REQUEST_BODY_BYTES", "1 MiB", "valid integer"),
        ("GATEWAY_MAX_HEADER_BYTES", "1023", "greater than or equal to 1024"),
        ("GATEWAY_KEEPALIVE_SECONDS", "0", "greater than 0"),
        ("GATEWAY_LOG_LEVEL", "verbose", "'debug', 'info', 'warning' or 'error'"),
    ],
)
def test_bad_value_is_refused_with_the_allowed_values(variable: str, value: str, allowed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as refusal:
        read_settings(Settings)
    message = str(refusal.value)
    assert message.startswith(f"{variable}={value!r}: ")
    assert allowed in message


def test_settings_do_not_change_once_read() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(read_settings(Settings, {}), "port", 1)  # noqa: B010  (mypy would refuse the plain assignment)


def test_every_setting_is_documented_with_its_default() -> None:
    said = describe_settings(Settings)
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description in said
        default = "" if field.default in (None, "") else f" (default {field.default})"
        assert f"  GATEWAY_{name.upper()}{default}\n" in said


def test_help_lists_the_settings(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["gateway", "--help"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    assert describe_settings(Settings) in capsys.readouterr().out


def test_problems_stop_the_start_with_status_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("GATEWAY_UPSTRAEM", "http://127.0.0.1:1")
    status, said = start_refused(monkeypatch, capsys)
    assert (status, said) == (2, "gateway: GATEWAY_UPSTRAEM is not a setting; the nearest is GATEWAY_UPSTREAM\n")


def test_unknown_argument_stops_the_start_with_status_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    status, said = start_refused(monkeypatch, capsys, "--port", "9000")
    assert status == 2
    assert "unrecognized arguments: --port 9000" in said


@pytest.mark.parametrize("url", ["https://events.example", "http://[::1]:8080", "https://events.example/prefix"])
def test_public_url_needs_no_slash_at_its_end(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for given in (url, url + "/"):
        monkeypatch.setenv("GATEWAY_PUBLIC_URL", given)
        assert read_settings(Settings).public_url == url
