import pytest
from pydantic import ValidationError

from producer.settings import Settings
from producer.web.problems import Problem
from producer.web.publish_keys import PublishKeys
from service.settings import SettingsError, describe_settings, read_settings


def refusal(keys: PublishKeys, authorization: str | None) -> Problem:
    with pytest.raises(Problem) as raised:
        keys.check(authorization)
    return raised.value


def test_any_client_may_publish_without_keys() -> None:
    for authorization in (None, "", "Bearer anything", "Basic eDp5"):
        PublishKeys.parse(" ").check(authorization)


@pytest.mark.parametrize("authorization", ["Bearer one", "bearer  one", "BEARER two== ", "Bearer two=="])
def test_each_key_permits_publishing(authorization: str) -> None:
    PublishKeys.parse("one, two==").check(authorization)


@pytest.mark.parametrize("authorization", [None, "", "one", "Bearer", "Basic b25lOg==", "Bearer one two"])
def test_no_key_is_401_that_says_how_to_send_one(authorization: str | None) -> None:
    problem = refusal(PublishKeys.parse("one"), authorization)
    assert problem.status_code == 401
    assert problem.headers == {"WWW-Authenticate": 'Bearer realm="publish"'}
    assert "Authorization: Bearer KEY" in problem.detail


@pytest.mark.parametrize("key", ["on", "onee", "One", "one,two", "two", "ÿ"])
def test_wrong_key_is_403_that_repeats_no_key(key: str) -> None:
    problem = refusal(PublishKeys.parse("one,zwei"), f"Bearer {key}")
    assert problem.status_code == 403
    assert "invalid_token" in (problem.headers or {})["WWW-Authenticate"]
    assert problem.facts == {"got": "another key", "allowed": "one of PRODUCER_PUBLISH_KEYS"}


@pytest.mark.parametrize("text", ["one,,two", "o ne", "schlüssel", "=one", "one,"])
def test_key_that_no_client_can_send_stops_the_start_and_is_not_shown(text: str) -> None:
    with pytest.raises(ValidationError):
        Settings(publish_keys=text)  # type: ignore[arg-type]


def test_error_about_keys_does_not_show_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRODUCER_PUBLISH_KEYS", "hush, top secret")
    with pytest.raises(SettingsError) as raised:
        read_settings(Settings)
    assert str(raised.value).startswith("PRODUCER_PUBLISH_KEYS: key 2 of 2 ")
    assert "secret" not in str(raised.value)


def test_keys_are_in_no_printed_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRODUCER_PUBLISH_KEYS", "hush")
    settings = read_settings(Settings)
    keys = PublishKeys.parse(settings.publish_keys.get_secret_value())
    assert "hush" not in f"{settings!r} {settings} {settings.model_dump_json()} {keys!r} {vars(keys)}"
    assert "PRODUCER_PUBLISH_KEYS\n" in describe_settings(Settings)
