"""All settings, read once from the environment and `.env`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import platformdirs
from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from worker.errors import SettingsInvalid

DATABASES = ("sqlite", "postgresql", "postgresql+psycopg")
BROKERS = ("redis", "rediss", "redis+socket")


def _default_home() -> Path:
    return platformdirs.user_data_path("loracle")


class Settings(BaseSettings):
    """Where things are and how the worker behaves.

    `requests_per_minute` and `tokens_per_minute` bound the oracle over all workers, 0 leaves that to what its
    server says; `max_cost` is what all jobs of the database may cost together, in US dollars; `prices` says what
    models cost. `worker_name` names this host in `status`, else it is the host's own name.
    Every field's variable is `LORACLE_<FIELD>`, but for the four that other tools share: DATABASE_URL,
    REDIS_URL, OPENAI_API_KEY and OPENAI_BASE_URL. Times are in seconds. `adapter` outranks the one that is active
    in the database; None leaves the choice to it.
    """

    model_config = SettingsConfigDict(
        env_prefix="LORACLE_",
        env_file=".env",
        extra="ignore",
        env_ignore_empty=True,
        frozen=True,
        populate_by_name=True,
        hide_input_in_errors=True,
    )

    database_url: SecretStr | None = Field(None, validation_alias=AliasChoices("DATABASE_URL"))
    redis_url: SecretStr | None = Field(None, validation_alias=AliasChoices("REDIS_URL"))
    openai_api_key: SecretStr | None = Field(None, validation_alias=AliasChoices("OPENAI_API_KEY"))
    openai_base_url: str | None = Field(None, validation_alias=AliasChoices("OPENAI_BASE_URL"))

    home: Path = Field(default_factory=_default_home)
    adapter: str | None = None
    base_model: str | None = None
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    dtype: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    token_budget: Annotated[int, Field(ge=512)] | None = None
    threads: Annotated[int, Field(ge=1)] | None = None
    worker_name: str | None = None
    loaded_adapters: int = Field(4, ge=1)

    batch_size: int = Field(256, ge=1, le=10_000)
    publish_window: int = Field(64, ge=1)
    lease_s: float = Field(60.0, gt=0)
    max_attempts: int = Field(3, ge=1)
    retry_delay_s: float = Field(1.0, ge=0)
    sweep_interval_s: float = Field(1.0, gt=0)
    bell_timeout_s: float = Field(600.0, gt=0)
    report_interval_s: float = Field(30.0, gt=0)

    oracle_model: str = "gpt-6-luna"
    oracle_timeout_s: float = Field(60.0, gt=0)
    oracle_lease_s: float = Field(180.0, gt=0)
    requests_per_minute: int = Field(0, ge=0)
    tokens_per_minute: int = Field(0, ge=0)
    max_cost: Annotated[float, Field(ge=0)] | None = None
    prices: str | None = None
    pack_after_s: float = Field(1.0, ge=0)
    fallback_after_s: float = Field(60.0, gt=0)
    bulk_size: int = Field(50_000, ge=1, le=50_000)
    bulk_after_s: float = Field(300.0, ge=0)
    bulk_poll_s: float = Field(60.0, gt=0)

    max_text_chars: int = Field(200_000, ge=1)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @field_validator("home")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("database_url")
    @classmethod
    def _database(cls, value: SecretStr | None) -> SecretStr | None:
        return _url(value, DATABASES)

    @field_validator("redis_url")
    @classmethod
    def _broker(cls, value: SecretStr | None) -> SecretStr | None:
        return _url(value, BROKERS)

    @field_validator("openai_base_url")
    @classmethod
    def _oracle(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("the URL must begin with https:// or http://")
        if parts.username or parts.password:
            raise ValueError("the URL must not hold a password: set OPENAI_API_KEY")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _servers_fit(self) -> Settings:
        if self.redis_url is None and not self.database.startswith("sqlite"):
            raise ValueError(
                "DATABASE_URL names PostgreSQL but REDIS_URL is not set: workers on several hosts need a "
                "Redis server that all can reach. Set REDIS_URL=redis://host:6379/0"
            )
        return self

    @property
    def database(self) -> str:
        """The database's URL with its password; the default is SQLite in `home`."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.default_database}"

    @property
    def default_database(self) -> Path:
        """Where the database is when DATABASE_URL isn't set."""
        return self.home / "loracle.db"

    @property
    def oracle_url(self) -> str:
        """Where the oracle is asked: OPENAI_BASE_URL, else OpenAI's own address."""
        return self.openai_base_url or "https://api.openai.com/v1"

    @property
    def embedded(self) -> bool:
        """Whether the queue is a private Valkey in `home` instead of a configured Redis."""
        return self.redis_url is None


def read_settings() -> Settings:
    """The settings of this process.

    Raises:
        SettingsInvalid: a value isn't allowed; the message names the variable and what is allowed.
    """
    try:
        return Settings()
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_input=False, include_url=False):
            field = str(problem["loc"][0]) if problem["loc"] else ""
            message = problem["msg"].removeprefix("Value error, ")
            lines.append(f"{_variable(field)}: {message}" if field else message)
        raise SettingsInvalid("; ".join(lines)) from None


def without_password(url: str) -> str:
    """The URL as it may be shown to people."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    return url.replace(f":{parts.password}@", ":***@", 1)


def _url(value: SecretStr | None, schemes: tuple[str, ...]) -> SecretStr | None:
    if value is not None and urlsplit(value.get_secret_value()).scheme not in schemes:
        raise ValueError(f"the URL must begin with {', '.join(scheme + '://' for scheme in schemes)}")
    return value


def _variable(field: str) -> str:
    shared = {"database_url", "redis_url", "openai_api_key", "openai_base_url"}
    name = field.upper()
    return name if field in shared or name in os.environ else f"LORACLE_{name}"
