"""Secrets that are read from files, for any service."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar

import pytest
from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from consumer.settings import ConsumerSettings
from producer.settings import Settings as ProducerSettings
from service.settings import ServiceSettings, SettingsError, describe_settings, read_settings, setting_names


class ProbeSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="PROBE_")
    removed_variables: ClassVar[Mapping[str, str]] = {"PROBE_PORTS": "one port is enough"}

    port: Annotated[int, Field(ge=1)] = 1
    """A port."""
    key: SecretStr = SecretStr("")
    """A key."""
    token: SecretStr | None = None
    """A token."""

    @field_validator("key")
    @classmethod
    def _key_is_long(cls, key: SecretStr) -> SecretStr:
        if 0 < len(key.get_secret_value()) < 3:
            raise ValueError("must have three characters")
        return key


def refusal(environ: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as refused:
        read_settings(ProbeSettings, environ)
    return str(refused.value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "secret"


@pytest.mark.parametrize(
    ("content", "key"),
    [("hidden", "hidden"), ("hidden\n", "hidden"), ("hidden\r\n", "hidden"), (" hidden \n\n", " hidden \n"), ("geheim·", "geheim·")],
)
def test_secret_is_read_from_a_file_without_a_final_line_end(file: Path, content: str, key: str) -> None:
    file.write_bytes(content.encode())
    settings = read_settings(ProbeSettings, {"PROBE_KEY_FILE": str(file), "probe_token_file": str(file)})
    assert settings.key.get_secret_value() == key
    assert settings.token is not None
    assert settings.token.get_secret_value() == key
    assert "hidden" not in repr(settings)


def test_empty_variable_names_no_file() -> None:
    assert read_settings(ProbeSettings, {"PROBE_KEY_FILE": "", "PROBE_TOKEN_FILE": ""}).token is None


def test_variable_and_file_at_once_are_refused(file: Path) -> None:
    assert refusal({"PROBE_KEY": "hidden", "PROBE_KEY_FILE": str(file)}) == "PROBE_KEY and PROBE_KEY_FILE are both set; set one of them"


def test_unreadable_secret_file_is_refused_by_name(file: Path, tmp_path: Path) -> None:
    environ = {"PROBE_KEY_FILE": str(file), "PROBE_TOKEN_FILE": str(tmp_path)}
    missing, directory = refusal(environ).splitlines()
    assert missing == f"PROBE_KEY_FILE={str(file)!r}: the file cannot be read: No such file or directory"
    assert directory == f"PROBE_TOKEN_FILE={str(tmp_path)!r}: the file cannot be read: Is a directory"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b"\n", "the file is empty"),
        (b"\xff", "the file is not UTF-8"),
        (b"x" * 65_537, "more than 65536 bytes"),
    ],
)
def test_content_that_cannot_be_a_secret_is_refused(file: Path, content: bytes, said: str) -> None:
    file.write_bytes(content)
    assert said in refusal({"PROBE_KEY_FILE": str(file)})


def test_invalid_secret_is_not_shown(file: Path) -> None:
    file.write_text("§§")
    assert refusal({"PROBE_KEY_FILE": str(file)}) == "PROBE_KEY_FILE: must have three characters"


def test_only_secrets_are_read_from_files(file: Path) -> None:
    assert refusal({"PROBE_PORT_FILE": str(file)}).startswith("PROBE_PORT_FILE is not a setting; the nearest is PROBE_")
    assert setting_names(ProbeSettings) == {"PROBE_PORT", "PROBE_KEY", "PROBE_KEY_FILE", "PROBE_TOKEN", "PROBE_TOKEN_FILE"}


def test_removed_variable_is_refused_with_what_replaces_it() -> None:
    assert refusal({"PROBE_PORTS": "1"}) == "PROBE_PORTS is no longer a setting: one port is enough; remove it"


@pytest.mark.parametrize("settings", [ProducerSettings, ConsumerSettings])
def test_removed_variables_of_a_service_are_refused(settings: type[ServiceSettings]) -> None:
    for name, instead in settings.removed_variables.items():
        with pytest.raises(SettingsError) as refused:
            read_settings(settings, {name: "1"})
        assert str(refused.value) == f"{name} is no longer a setting: {instead}; remove it"
    assert not setting_names(settings) & settings.removed_variables.keys()


def test_help_names_the_variables_of_files() -> None:
    assert "  PROBE_TOKEN\n      A token.\n  PROBE_TOKEN_FILE\n      A file to read it from instead" in describe_settings(ProbeSettings)


def test_publish_keys_and_source_headers_can_be_read_from_files(file: Path) -> None:
    file.write_text("hidden\n")
    assert read_settings(ProducerSettings, {"PRODUCER_PUBLISH_KEYS_FILE": str(file)}).publish_keys.get_secret_value() == "hidden"
    file.write_text('{"Authorization": "Bearer hidden"}\n')
    assert read_settings(ConsumerSettings, {"CONSUMER_SOURCE_HEADERS_FILE": str(file)}).headers() == {"Authorization": "Bearer hidden"}
