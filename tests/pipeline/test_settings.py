"""What follows from the plan, and that users can find every setting."""

import re
from pathlib import Path

import pytest
from pydantic import HttpUrl, SecretStr

from coin_pipeline.settings import PipelineSettings, SettingsError, read_settings
from receiver.settings import ReceiverSettings

PROJECT = Path(__file__).parent.parent.parent
KEY = "a-key"


@pytest.mark.parametrize(
    ("environment", "plan", "calls_per_minute", "host"),
    [
        ({}, "public", 5, "api.coingecko.com"),
        ({"COINGECKO_API_KEY": KEY}, "demo", 30, "api.coingecko.com"),
        ({"COINGECKO_API_KEY": KEY, "COINGECKO_PLAN": "pro"}, "pro", 500, "pro-api.coingecko.com"),
        ({"COINGECKO_API_KEY": KEY, "COINGECKO_CALLS_PER_MINUTE": "0"}, "demo", 0, "api.coingecko.com"),
        ({"COINGECKO_API_KEY": "", "COINGECKO_PLAN": ""}, "public", 5, "api.coingecko.com"),
    ],
)
def test_the_plan_decides_host_and_limit(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], plan: str, calls_per_minute: int, host: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@nowhere/challenge_db")
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    settings = PipelineSettings()
    assert settings.plan == plan
    assert settings.calls_per_minute == calls_per_minute
    assert host in settings.base_url
    assert KEY not in repr(settings)


@pytest.mark.parametrize(
    ("environment", "calls_per_month", "has_key"),
    [
        ({}, 0, False),
        ({"COINGECKO_API_KEY": KEY}, 10_000, False),
        ({"COINGECKO_API_KEY": KEY, "COINGECKO_CALLS_PER_MONTH": "500"}, 500, False),
        ({"COINGECKO_API_KEY": KEY, "COINGECKO_CALLS_PER_MONTH": "0"}, 0, False),
        ({"COINGECKO_API_KEY": KEY, "COINGECKO_PLAN": "pro"}, None, True),
    ],
)
def test_the_plan_decides_the_credit_of_a_month(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], calls_per_month: int | None, *, has_key: bool
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@nowhere/challenge_db")
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    account = PipelineSettings().account
    assert (account.calls_per_month, account.has_key) == (calls_per_month, has_key)


def test_an_account_is_another_with_another_host_plan_or_key_and_says_nothing_of_the_key() -> None:
    def account_of(**settings: object) -> str:
        return PipelineSettings(database_url="postgresql:///", **settings).account.id  # type: ignore[arg-type]

    accounts = {
        account_of(),
        account_of(coingecko_base_url=HttpUrl("http://127.0.0.1:8080/api/v3")),
        account_of(coingecko_api_key=SecretStr(KEY)),
        account_of(coingecko_api_key=SecretStr(KEY), coingecko_plan="pro"),
        account_of(coingecko_api_key=SecretStr("another"), coingecko_plan="pro"),
    }
    assert len(accounts) == 5
    assert not [account for account in accounts if KEY in account]


def test_every_setting_is_in_the_example_and_in_compose() -> None:
    example = set(re.findall(r"^(?:# )?([A-Z_]+)=", (PROJECT / ".env.example").read_text(), re.MULTILINE))
    settings = {name.upper() for model in (PipelineSettings, ReceiverSettings) for name in model.model_fields}
    assert settings <= example
    compose = set(re.findall(r"^\s+([A-Z_]+):", (PROJECT / "docker-compose.yml").read_text(), re.MULTILINE))
    assert settings <= compose


def test_a_key_is_sent_without_the_newline_of_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@nowhere/challenge_db")
    monkeypatch.setenv("COINGECKO_API_KEY", " CG-key\n")
    key = PipelineSettings().coingecko_api_key
    assert key is not None
    assert key.get_secret_value() == "CG-key"


@pytest.mark.parametrize("key", ["CG key", "CG\nkey", "CG-k\u20acy", "\u201cCG-key\u201d"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@nowhere/challenge_db")
    monkeypatch.setenv("COINGECKO_API_KEY", key)
    with pytest.raises(SettingsError) as ended:
        read_settings()
    assert str(ended.value) == "COINGECKO_API_KEY: a key has visible ASCII characters only; copy it again"
