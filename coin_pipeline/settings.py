"""The pipeline's settings, read once from environment variables of the same names."""

import hashlib
import re
from datetime import timedelta
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, HttpUrl, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from coin_pipeline.coingecko.budget import Account
from sql.database_url import options_in

VISIBLE = re.compile("[!-~]+")

Plan = Literal["public", "demo", "pro"]

# A keyless address is shared and unspecified (5 to 30 seen); the demo plan documents 30, the pro plan 500.
DEFAULT_CALLS_PER_MINUTE: dict[Plan, int] = {"public": 5, "demo": 30, "pro": 500}

# No cap is known without a key; the demo plan has 10 000 (CoinGecko, 2026); GET /key says what a paid plan has.
DEFAULT_CALLS_PER_MONTH: dict[Plan, int | None] = {"public": 0, "demo": 10_000, "pro": None}

DEFAULT_BASE_URL: dict[Plan, str] = {
    "public": "https://api.coingecko.com/api/v3",
    "demo": "https://api.coingecko.com/api/v3",
    "pro": "https://pro-api.coingecko.com/api/v3",
}


class PipelineSettings(BaseSettings):
    """What the pipeline can be told; `.env.example` explains each."""

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True, extra="ignore")

    database_url: str
    coingecko_base_url: HttpUrl | None = None
    coingecko_api_key: SecretStr | None = None
    coingecko_plan: Plan | None = None
    coingecko_calls_per_minute: Annotated[int, Field(ge=0)] | None = None
    coingecko_calls_per_month: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    coingecko_concurrency: Annotated[int, Field(ge=1, le=64)] = 4
    coingecko_max_pages: Annotated[int, Field(ge=1)] = 30
    lookup_runs: Annotated[int, Field(ge=1, le=16)] = 1
    retention_days: Annotated[int, Field(ge=1, le=10_000)] = 30
    alert_webhook_url: SecretStr | None = None
    coins_refresh_after_days: Annotated[int, Field(ge=0, le=10_000)] = 7

    @field_validator("database_url")
    @classmethod
    def _is_a_database(cls, value: str) -> str:
        options_in(value)
        return value

    @field_validator("coingecko_api_key")
    @classmethod
    def _can_be_sent(cls, key: SecretStr | None) -> SecretStr | None:
        if key is None:
            return None
        stripped = key.get_secret_value().strip()  # a secret's file ends with a newline
        if not VISIBLE.fullmatch(stripped):
            raise ValueError("a key has visible ASCII characters only; copy it again")
        return SecretStr(stripped)

    @field_validator("alert_webhook_url")
    @classmethod
    def _can_be_posted_to(cls, url: SecretStr | None) -> SecretStr | None:
        if url is None:
            return None
        parts = urlsplit(url.get_secret_value().strip())
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("give the whole URL of a webhook, https://...")
        return SecretStr(parts.geturl())

    @model_validator(mode="after")
    def _plan_needs_its_key(self) -> Self:
        if self.plan != "public" and self.coingecko_api_key is None:
            raise ValueError(f"COINGECKO_PLAN={self.plan} needs COINGECKO_API_KEY")
        return self

    @property
    def plan(self) -> Plan:
        """The CoinGecko plan: as set, else demo with a key and public without."""
        return self.coingecko_plan or ("demo" if self.coingecko_api_key else "public")

    @property
    def base_url(self) -> str:
        """The API's root: as set, else the host of the plan."""
        return str(self.coingecko_base_url or DEFAULT_BASE_URL[self.plan])

    @property
    def calls_per_minute(self) -> int:
        """Calls a minute that all processes may make together; 0 is no limit."""
        if self.coingecko_calls_per_minute is None:
            return DEFAULT_CALLS_PER_MINUTE[self.plan]
        return self.coingecko_calls_per_minute

    @property
    def calls_per_month(self) -> int | None:
        """Calls of a calendar month (UTC), of all processes together; 0 is no cap, None what `GET /key` says."""
        if self.coingecko_calls_per_month is None:
            return DEFAULT_CALLS_PER_MONTH[self.plan]
        return self.coingecko_calls_per_month

    @property
    def account(self) -> Account:
        """Whose credit is used, known by a digest of host, plan and key, which tells nothing of the key."""
        key = self.coingecko_api_key.get_secret_value() if self.coingecko_api_key else ""
        host = urlsplit(self.base_url).netloc
        return Account(
            id=hashlib.sha256(f"{host}\n{self.plan}\n{key}".encode()).hexdigest()[:16],
            calls_per_month=self.calls_per_month,
            has_key=self.plan == "pro",
            refresh_after=self.refresh_after,
        )

    @property
    def refresh_after(self) -> timedelta | None:
        """How old an answer may grow before it is asked for again; None is never."""
        return timedelta(days=self.coins_refresh_after_days) if self.coins_refresh_after_days else None


class SettingsError(Exception):
    """A setting is wrong: one line that names the variable and what is wrong with it."""


def read_settings() -> PipelineSettings:
    """Read the settings from the environment.

    Raises:
        SettingsError: one of them is wrong, or `DATABASE_URL` is missing.
    """
    try:
        return PipelineSettings()
    except ValidationError as error:
        problem = error.errors()[0]
        variable = str(problem["loc"][0]).upper() + ": " if problem["loc"] else ""
        # The error itself holds what was set, which may be a secret.
        raise SettingsError(f"{variable}{problem['msg'].removeprefix('Value error, ')}") from None
