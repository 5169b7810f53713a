"""All settings, read once from the environment and the `.env` files."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from dotenv.parser import parse_stream
from dotenv.variables import Variable, parse_variables
from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from worker.errors import SettingsInvalid
from worker.reviews import MOST_DOLLARS, Backend, Dtype, Money
from worker.urls import (
    check_broker,
    check_database,
    check_oracle,
)

CHECKOUT = Path(__file__).parents[1]
"""The folder of the source code, when it runs from there: `pyproject.toml` lies in it."""
DOTENV = "LORACLE_DOTENV"
"""The variable that keeps a process from reading any `.env`, with the value "no": its environment says it all."""
SHARED_VARIABLES = ("DATABASE_URL", "REDIS_URL", "OPENAI_API_KEY", "OPENAI_BASE_URL")
"""Those that other tools know too; the others begin with LORACLE_."""


Count = Annotated[int, Field(le=2**31 - 1)]
Seconds = Annotated[float, Field(le=1e9)]
_MOST_CHARS = 1024 * 1024
"""Of a `.env`, and of all its values."""


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
        try:
            return value.expanduser().absolute()
        except RuntimeError:
            raise ValueError("the user behind the ~ has no home directory. Give a path from /") from None


class Settings(Home):
    """Where things are and how the worker behaves.

    `requests_per_minute` and `tokens_per_minute` bound the oracle over all workers, 0 leaves that to what its
    server says; `max_cost` is what all jobs of the database may cost together, in US dollars; `prices` says what
    models cost. `worker_name` names this host in `status`, else it is the host's own name.
    Every field's variable is `LORACLE_<FIELD>`, but for the four that other tools share: DATABASE_URL,
    REDIS_URL, OPENAI_API_KEY and OPENAI_BASE_URL. Times are in seconds. `adapter` outranks the one that is active
    in the database; None leaves the choice to it. A secret may also stand in a file, which <VARIABLE>_FILE names.
    `task_events` makes Celery tell what its workers do, for Flower and the like. `traces` sends each job as a trace
    of OpenTelemetry to where its own variables say.

    Of `loracle web`: `web_token` opens it, `web_folders` are those whose files it may read by path, with `:` between
    them (`;` on Windows), `web_hosts` names by which browsers reach it, with commas; an upload has `web_upload_mb`
    MiB and `web_upload_rows` records at most.
    """

    database_url: SecretStr | None = Field(None, validation_alias=AliasChoices("DATABASE_URL"))
    redis_url: SecretStr | None = Field(None, validation_alias=AliasChoices("REDIS_URL"))
    openai_api_key: SecretStr | None = Field(None, validation_alias=AliasChoices("OPENAI_API_KEY"))
    openai_base_url: str | None = Field(None, validation_alias=AliasChoices("OPENAI_BASE_URL"))

    adapter: str | None = None
    base_model: str | None = None
    device: str = "auto"
    dtype: Dtype = "auto"
    backend: Backend = "auto"
    token_budget: Annotated[Count, Field(ge=512)] | None = None
    threads: Annotated[Count, Field(ge=1)] | None = None
    worker_name: str | None = None
    loaded_adapters: Count = Field(4, ge=1)

    batch_size: int = Field(256, ge=1, le=10_000)
    publish_window: Count = Field(64, ge=1)
    lease_s: Seconds = Field(60.0, gt=0)
    max_attempts: Count = Field(3, ge=1)
    retry_delay_s: Seconds = Field(1.0, ge=0)
    sweep_interval_s: Seconds = Field(1.0, gt=0)
    unheard_after_s: Seconds = Field(600.0, gt=0)
    report_interval_s: Seconds = Field(30.0, gt=0)
    task_events: bool = False
    traces: bool = False

    oracle_model: str = "gpt-6-luna"
    oracle_timeout_s: Seconds = Field(60.0, gt=0)
    oracle_lease_s: Seconds = Field(180.0, gt=0)
    requests_per_minute: Count = Field(0, ge=0)
    tokens_per_minute: Count = Field(0, ge=0)
    max_cost: Annotated[Decimal, Field(ge=0, le=MOST_DOLLARS)] | None = None
    prices: str | None = None
    pack_after_s: Seconds = Field(1.0, ge=0)
    fallback_after_s: Seconds = Field(60.0, gt=0)
    bulk_size: int = Field(50_000, ge=1, le=50_000)
    bulk_after_s: Seconds = Field(300.0, ge=0)
    bulk_poll_s: Seconds = Field(60.0, gt=0)

    web_token: SecretStr | None = None
    web_folders: str | None = None
    web_hosts: str | None = None
    web_upload_mb: Count = Field(2048, ge=1)
    web_upload_rows: Count = Field(5_000_000, ge=1)

    max_text_chars: Count = Field(200_000, ge=1)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["text", "json"] = "text"

    @field_validator("database_url")
    @classmethod
    def _database(cls, value: SecretStr | None) -> SecretStr | None:
        return _checked(value, check_database)

    @field_validator("redis_url")
    @classmethod
    def _broker(cls, value: SecretStr | None) -> SecretStr | None:
        return _checked(value, check_broker)

    @field_validator("openai_api_key")
    @classmethod
    def _key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not (
            value.get_secret_value().isascii() and value.get_secret_value().isprintable()
        ):
            raise ValueError("the key has a line end or another character that no key has. Copy it again")
        return value

    @field_validator("web_token")
    @classmethod
    def _token(cls, value: SecretStr | None) -> SecretStr | None:
        token = "" if value is None else value.get_secret_value()
        if value is not None and not (len(token) >= 16 and token.isascii() and token.isprintable()):
            raise ValueError(
                "a token has 16 characters of ASCII or more. Make one: "
                "python3 -c 'import secrets; print(secrets.token_urlsafe())'"
            )
        if token != token.strip():
            raise ValueError("the token begins or ends with white space. Copy it again")
        return value

    @field_validator("web_folders")
    @classmethod
    def _folders(cls, value: str | None) -> str | None:
        for part in (value or "").split(os.pathsep):
            if part.strip() and not Path(part.strip()).expanduser().is_absolute():
                raise ValueError(f"{part.strip()} isn't an absolute path")
        return value

    @field_validator("adapter", "base_model", "worker_name", "oracle_model", "prices")
    @classmethod
    def _text(cls, value: str | None) -> str | None:
        try:
            (value or "").encode()
        except UnicodeEncodeError:
            raise ValueError("it isn't UTF-8") from None
        return value

    @field_validator("device")
    @classmethod
    def _device(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?", value):
            raise ValueError("allowed are auto, cpu, cuda and, for one GPU of several, cuda:0, cuda:1 …")
        return value

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
    def has_no_database(self) -> bool:
        """Whether the default database is meant, and nobody has made it yet."""
        return self.database_url is None and not self.default_database.exists()

    @property
    def most_spent(self) -> Money | None:
        """`max_cost` as the ledger counts; None without a limit."""
        return None if self.max_cost is None else Money.at_most(self.max_cost)

    @property
    def readable_folders(self) -> tuple[Path, ...]:
        """The folders of `web_folders`, without symbolic links on the way."""
        parts = [part.strip() for part in (self.web_folders or "").split(os.pathsep)]
        return tuple(Path(part).expanduser().resolve() for part in parts if part)

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
        settings = Settings(_env_file=files.read, **_secrets_from_files())
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_input=False, include_url=False):
            field = str(problem["loc"][0]) if problem["loc"] else ""
            message = _in_words(problem)
            lines.append(f"{_variable(field)}: {message}" if field else message)
        raise SettingsInvalid("; ".join(lines)) from None
    if settings.home != files.home:
        raise SettingsInvalid(
            f"{files.home / '.env'} sets LORACLE_HOME to another directory than its own. Set it in the environment"
            " or in the checkout's .env."
        )
    return settings


def secret_variables() -> list[str]:
    """The variables that hold secrets: <VARIABLE>_FILE may name a file with the value instead."""
    fields = Settings.model_fields.items()
    return [_variable(name) for name, field in fields if field.annotation == SecretStr | None]


def _secrets_from_files() -> dict[str, Any]:
    """The secrets that stand in files, as Docker and Kubernetes mount them. A line end behind one isn't part of it.

    Raises:
        SettingsInvalid: a file can't be read or holds nothing, or a secret is also set itself.
    """
    found = {}
    for variable in secret_variables():
        name = f"{variable}_FILE"
        if not os.environ.get(name):
            continue
        if os.environ.get(variable):
            raise SettingsInvalid(f"{variable} and {name} are both set: keep one of them.")
        path = Path(os.environ[name])
        try:
            with path.open(encoding="utf-8") as file:
                value = file.read(_MOST_CHARS).rstrip("\r\n")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it isn't a text in UTF-8"
            raise SettingsInvalid(f"{name}: {path} can't be read: {reason}.") from None
        if not value:
            raise SettingsInvalid(f"{name}: {path} is empty. Write the secret into it.")
        found[variable if variable in SHARED_VARIABLES else variable.removeprefix("LORACLE_").lower()] = value
    return found


_WORDS = {
    "greater_than": "it must be more than {gt}",
    "greater_than_equal": "it must be at least {ge}",
    "less_than": "it must be less than {lt}",
    "less_than_equal": "it must be at most {le}",
    "literal_error": "allowed are {expected}",
    "int_parsing": "it must be a whole number, such as 64",
    "int_parsing_size": "it must be a whole number, such as 64",
    "int_from_float": "it must be a whole number, such as 64",
    "float_parsing": "it must be a number, such as 1.5",
    "finite_number": "it must be a number, such as 1.5",
    "decimal_parsing": "it must be a number, such as 1.5",
}
"""By pydantic's type of an error: what is allowed, in words."""


def _in_words(problem: ErrorDetails) -> str:
    said = _WORDS.get(problem["type"])
    if said is None:
        return problem["msg"].removeprefix("Value error, ")
    return said.format(**problem.get("ctx", {}))


def _exists(path: Path) -> bool:
    """Whether there is such a file; a directory of this name is somebody's virtual environment.

    Raises:
        SettingsInvalid: it can't be read or isn't a valid `.env`.
    """
    try:
        if not path.is_file():
            return False
        with path.open(encoding="utf-8") as file:
            text = file.read(_MOST_CHARS + 1)
    except OSError as error:
        raise SettingsInvalid(f"{path} can't be read: {error.strerror}. Mend it or move it away.") from error
    except UnicodeDecodeError:
        raise SettingsInvalid(f"{path} isn't a text file in UTF-8. Mend it or move it away.") from None
    if len(text) > _MOST_CHARS:
        raise SettingsInvalid(f"{path} has more than {_MOST_CHARS:,} characters. Mend it or move it away.")
    sizes: dict[str, int] = {}
    total = 0
    for binding in parse_stream(io.StringIO(text)):
        if binding.error or "\0" in binding.original.string or (binding.key and binding.value is None):
            content = binding.original.string
            blank = content[: len(content) - len(content.lstrip())]
            line = binding.original.line + blank.count("\n")
            raise SettingsInvalid(
                f"{path}, line {line}: this isn't NAME=VALUE. Mend it or move the file away."
            )
        size = sizes[binding.key or ""] = _size_of(binding.value or "", sizes)
        total += size
        if total > _MOST_CHARS:
            line = binding.original.line
            raise SettingsInvalid(
                f"{path}, line {line}: its ${{…}} make values of more than {_MOST_CHARS:,} characters. Mend it."
            )
    return True


def _size_of(value: str, sizes: Mapping[str, int]) -> int:
    """How long a value is with its ${…} put in: each may be ten of the one above it."""
    return sum(
        max(sizes.get(part.name, 0), len(os.environ.get(part.name, "")), len(part.default or ""))
        if isinstance(part, Variable)
        else len(part.resolve({}))
        for part in parse_variables(value)
    )


def _checked(value: SecretStr | None, check: Callable[[str], None]) -> SecretStr | None:
    if value is not None:
        check(value.get_secret_value())
    return value


def _variable(field: str) -> str:
    name = field.upper()
    return name if name in SHARED_VARIABLES else f"LORACLE_{name}"
