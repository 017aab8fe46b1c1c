"""What follows from the plan, and that users can find every setting."""

import re
from pathlib import Path

import pytest

from coin_pipeline.settings import PipelineSettings
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


def test_every_setting_is_in_the_example_and_in_compose() -> None:
    example = set(re.findall(r"^(?:# )?([A-Z_]+)=", (PROJECT / ".env.example").read_text(), re.MULTILINE))
    settings = {name.upper() for model in (PipelineSettings, ReceiverSettings) for name in model.model_fields}
    assert settings <= example
    compose = set(re.findall(r"^\s+([A-Z_]+):", (PROJECT / "docker-compose.yml").read_text(), re.MULTILINE))
    assert settings <= compose
