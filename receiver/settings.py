"""The receiver's settings, read once from environment variables of the same names."""

import os
import re
import sys
from typing import Annotated, Self

from limits import parse_many
from limits.storage import storage_from_string
from psycopg.conninfo import make_conninfo
from psycopg.pq import PGconn
from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from sql.database_url import options_in

KEY = re.compile("[!-~]+")  # what a header can hold
KEY_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

NOWHERE = "/dev/null"


class ReceiverSettings(BaseSettings):
    """What the receiver can be told; `.env.example` explains each."""

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True, extra="ignore")

    database_url: str
    receiver_host: str = "127.0.0.1"
    receiver_port: Annotated[int, Field(ge=1, le=65535)] = 5004
    receiver_workers: Annotated[int, Field(ge=1, le=64)] = 1
    receiver_threads: Annotated[int, Field(ge=1, le=256)] = 8
    receiver_rate_limit: str = "600/minute"
    ratelimit_storage_uri: str = "memory://"
    receiver_api_keys: Annotated[dict[str, str], NoDecode, Field(repr=False)] = {}
    receiver_trusted_proxies: Annotated[int, Field(ge=0, le=16)] = 0
    receiver_body_seconds: Annotated[float, Field(gt=0, le=600)] = 30
    receiver_drain_seconds: Annotated[float, Field(ge=0, le=60)] = 0.5
    receiver_max_bytes: Annotated[int, Field(ge=1)] = 2**20
    receiver_max_coins: Annotated[int, Field(ge=1)] = 10_000

    @field_validator("database_url")
    @classmethod
    def _is_a_database(cls, value: str) -> str:
        given = options_in(value)
        # The rest is looked at by libpq when it connects; to a socket where no server can be it gets no further.
        hosts = str(given.get("host") or os.environ.get("PGHOST", ""))
        places = [NOWHERE] * (hosts.count(",") + 1)
        trial = make_conninfo(value, host=",".join(places), hostaddr="", connect_timeout=1)
        complaint = PGconn.connect(trial.encode()).error_message.decode(errors="replace").strip()
        if NOWHERE not in complaint:
            raise ValueError(complaint)
        return value

    @field_validator("ratelimit_storage_uri")
    @classmethod
    def _is_a_storage(cls, value: str) -> str:
        try:
            if not value.startswith("memory:"):
                storage_from_string(value if value.startswith("redis") else "")
        except Exception as error:
            raise ValueError("give memory:// or a Redis, such as redis://localhost:6379") from error
        return value

    @field_validator("receiver_rate_limit")
    @classmethod
    def _is_a_limit(cls, value: str) -> str:
        try:
            parse_many(value)
        except ValueError as error:
            raise ValueError(f"{value!r} is not a rate such as 600/minute") from error
        return value

    @field_validator("receiver_api_keys", mode="before")
    @classmethod
    def _are_keys(cls, value: str | dict[str, str]) -> dict[str, str]:
        if isinstance(value, dict):
            return value
        pairs = [pair.strip().partition(":")[::2] for pair in value.split(",") if pair.strip()]
        if not all(KEY_NAME.fullmatch(name) and KEY.fullmatch(key) for name, key in pairs):
            raise ValueError("give keys as name:key,name:key; a name has letters, digits, - and _, a key visible ASCII")
        keys = dict(pairs)
        if len(keys) < len(pairs) or len(set(keys.values())) < len(pairs):
            raise ValueError("two keys are the same, or have the same name")
        return keys

    @model_validator(mode="after")
    def _workers_share_their_counts(self) -> Self:
        if self.receiver_workers > 1 and self.ratelimit_storage_uri.startswith("memory:"):
            raise ValueError(
                f"RATELIMIT_STORAGE_URI: memory counts in each process by itself, so RECEIVER_WORKERS="
                f"{self.receiver_workers} needs a shared storage such as redis://localhost:6379"
            )
        return self


def read_settings() -> ReceiverSettings:
    """Read the settings, or end the process with one line that names the variable and what is wrong with it."""
    try:
        return ReceiverSettings()
    except ValidationError as error:
        problem = error.errors()[0]
        variable = str(problem["loc"][0]).upper() + ": " if problem["loc"] else ""
        sys.exit(f"{variable}{problem['msg'].removeprefix('Value error, ')}")
