import pytest
from pydantic import ValidationError

from producer.settings import Settings
from service.settings import read_settings


def test_defaults_are_those_of_the_demo() -> None:
    settings = read_settings(Settings, {})
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert settings.text == "七夕情人节即将来临,我们为您准备了精美的鲜花和美味的蛋糕"
    assert (settings.interval_ms, settings.retry_ms) == (100, 15_000)
    assert settings.allowed_origins == ("*",)
    assert not settings.credentials_allowed


def test_every_setting_is_documented() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name


def test_default_interval_must_be_within_the_limit_of_queries() -> None:
    with pytest.raises(ValidationError, match="less than or equal to 60000"):
        Settings(interval_ms=60_001)


def test_environment_is_read_and_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRODUCER_LOG_DIR", "/var/log/producer")
    monkeypatch.setenv("PRODUCER_CORS_ORIGINS", '["http://a.example"]')
    monkeypatch.setenv("PRODUCER_TEXT", "")
    settings = read_settings(Settings)
    assert str(settings.log_dir) == "/var/log/producer"
    assert settings.allowed_origins == ("http://a.example",)
    assert settings.text.startswith("七夕")
