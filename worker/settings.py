"""All settings, read once from the environment and the `.env` files."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

import platformdirs
from dotenv.parser import parse_stream
from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from worker.errors import SettingsInvalid
from worker.money import MOST_DOLLARS, Money
from worker.urls import check_broker, check_database, check_oracle

CHECKOUT = Path(__file__).parents[1]
"""The folder of the source code, when it runs from there: `pyproject.toml` lies in it."""
DOTENV = "LORACLE_DOTENV"
"""The variable that keeps a process from reading any `.env`, with the value "no": its environment says it all."""


def _default_home() -> Path:
    return platformdirs.user_data_path("loracle")


class Home(BaseSettings):
    """The data directory, which is known before its `.env` is read."""

    model_config = SettingsConfigDict(
        env_prefix="LORACLE_",
        extra="ignore",
        env_ignore_empty=True,
        frozen=True,
        populate_by_name=True,
        hide_input_in_errors=True,
    )

    home: Path = Field(default_factory=_default_home)

    @field_validator("home")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()


class Settings(Home):
    """Where things are and how the worker behaves.

    `requests_per_minute` and `tokens_per_minute` bound the oracle over all workers, 0 leaves that to what its
    server says; `max_cost` is what all jobs of the database may cost together, in US dollars; `prices` says what
    models cost. `worker_name` names this host in `status`, else it is the host's own name.
    Every field's variable is `LORACLE_<FIELD>`, but for the four that other tools share: DATABASE_URL,
    REDIS_URL, OPENAI_API_KEY and OPENAI_BASE_URL. Times are in seconds. `adapter` outranks the one that is active
    in the database; None leaves the choice to it.
    """

    database_url: SecretStr | None = Field(None, validation_alias=AliasChoices("DATABASE_URL"))
    redis_url: SecretStr | None = Field(None, validation_alias=AliasChoices("REDIS_URL"))
    openai_api_key: SecretStr | None = Field(None, validation_alias=AliasChoices("OPENAI_API_KEY"))
    openai_base_url: str | None = Field(None, validation_alias=AliasChoices("OPENAI_BASE_URL"))

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
    max_cost: Annotated[Decimal, Field(ge=0, le=MOST_DOLLARS)] | None = None
    prices: str | None = None
    pack_after_s: float = Field(1.0, ge=0)
    fallback_after_s: float = Field(60.0, gt=0)
    bulk_size: int = Field(50_000, ge=1, le=50_000)
    bulk_after_s: float = Field(300.0, ge=0)
    bulk_poll_s: float = Field(60.0, gt=0)

    max_text_chars: int = Field(200_000, ge=1)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @field_validator("database_url")
    @classmethod
    def _database(cls, value: SecretStr | None) -> SecretStr | None:
        return _checked(value, check_database)

    @field_validator("redis_url")
    @classmethod
    def _broker(cls, value: SecretStr | None) -> SecretStr | None:
        return _checked(value, check_broker)

    @field_validator("openai_base_url")
    @classmethod
    def _oracle(cls, value: str | None) -> str | None:
        if value is None:
            return None
        check_oracle(value)
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
        path = str(self.default_database).replace("%", "%25").replace("?", "%3F")
        return f"sqlite:///{path}"

    @property
    def default_database(self) -> Path:
        """Where the database is when DATABASE_URL isn't set."""
        return self.home / "loracle.db"

    @property
    def most_spent(self) -> Money | None:
        """`max_cost` as the ledger counts; None without a limit."""
        return None if self.max_cost is None else Money.at_most(self.max_cost)

    @property
    def oracle_url(self) -> str:
        """Where the oracle is asked: OPENAI_BASE_URL, else OpenAI's own address."""
        return self.openai_base_url or "https://api.openai.com/v1"

    @property
    def embedded(self) -> bool:
        """Whether the queue is a private Valkey in `home` instead of a configured Redis."""
        return self.redis_url is None


@dataclass(frozen=True, slots=True)
class EnvFiles:
    """The `.env` files of this process.

    `read`: those that count, of which a later one outranks an earlier one. `home`: the data directory. `ignored`:
    the one in the working directory, unless it is among them.
    """

    read: tuple[Path, ...]
    home: Path
    ignored: Path | None


def find_env_files() -> EnvFiles:
    """The `.env` of the checkout and that of the data directory, as far as they exist.

    The one of the working directory isn't read: a folder of data that somebody made could name another server,
    which would then get the key.

    Raises:
        SettingsInvalid: a file can't be read or isn't a valid `.env`.
    """
    here = Path(".env")
    ignored = here.absolute() if here.is_file() else None
    if os.environ.get(DOTENV, "") not in ("", "yes", "no"):
        raise SettingsInvalid(f"{DOTENV}: allowed are yes and no")
    if os.environ.get(DOTENV) == "no":
        return EnvFiles((), Home().home, ignored)
    found = (
        [CHECKOUT / ".env"] if (CHECKOUT / "pyproject.toml").is_file() and _exists(CHECKOUT / ".env") else []
    )
    home = Home(_env_file=found).home
    own = home / ".env"
    if _exists(own) and not any(own.samefile(path) for path in found):
        found.append(own)
    if ignored is not None and any(ignored.samefile(path) for path in found):
        ignored = None
    return EnvFiles(tuple(found), home, ignored)


def read_settings() -> Settings:
    """The settings of this process: the environment, then the data directory's `.env`, then the checkout's.

    Raises:
        SettingsInvalid: a value isn't allowed, and the message names the variable and what is allowed; or a `.env`
            can't be read.
    """
    try:
        files = find_env_files()
        settings = Settings(_env_file=files.read)
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_input=False, include_url=False):
            field = str(problem["loc"][0]) if problem["loc"] else ""
            message = problem["msg"].removeprefix("Value error, ")
            lines.append(f"{_variable(field)}: {message}" if field else message)
        raise SettingsInvalid("; ".join(lines)) from None
    if settings.home != files.home:
        raise SettingsInvalid(
            f"{files.home / '.env'} sets LORACLE_HOME to another directory than its own. Set it in the environment"
            " or in the checkout's .env."
        )
    return settings


def _exists(path: Path) -> bool:
    """Whether there is such a file; a directory of this name is somebody's virtual environment.

    Raises:
        SettingsInvalid: it can't be read or isn't a valid `.env`.
    """
    try:
        if not path.is_file():
            return False
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsInvalid(f"{path} can't be read: {error.strerror}. Mend it or move it away.") from error
    except UnicodeDecodeError:
        raise SettingsInvalid(f"{path} isn't a text file in UTF-8. Mend it or move it away.") from None
    for binding in parse_stream(io.StringIO(text)):
        if binding.error or "\0" in binding.original.string or (binding.key and binding.value is None):
            content = binding.original.string
            blank = content[: len(content) - len(content.lstrip())]
            line = binding.original.line + blank.count("\n")
            raise SettingsInvalid(
                f"{path}, line {line}: this isn't NAME=VALUE. Mend it or move the file away."
            )
    return True


def _checked(value: SecretStr | None, check: Callable[[str], None]) -> SecretStr | None:
    if value is not None:
        check(value.get_secret_value())
    return value


def _variable(field: str) -> str:
    name = field.upper()
    shared = ("DATABASE_URL", "REDIS_URL", "OPENAI_API_KEY", "OPENAI_BASE_URL")
    return name if name in shared else f"LORACLE_{name}"
