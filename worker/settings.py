"""All settings, read once from the environment and the `.env` files; URLs of servers: which are refused, and how one
is shown without its secrets."""

from __future__ import annotations

import io
import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import platformdirs
from dotenv.parser import parse_stream
from dotenv.variables import Variable, parse_variables
from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from worker.errors import SettingsInvalid
from worker.reviews import MOST_DOLLARS, Backend, Dtype, Money

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
    `task_events` makes Celery tell what its workers do, for Flower and the like.

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


# SQLAlchemy, kombu and redis read a raw "@", "/" or "#" in a password differently: each takes another part of the
# password for the host. So a URL is refused unless all of them read it alike.
DATABASES = ("sqlite", "postgresql", "postgresql+psycopg")
BROKERS = ("redis", "rediss", "redis+socket")
ORACLES = ("https", "http")

ESCAPES = "In a user name or password, write # / ? @ : % [ ] as %23 %2F %3F %40 %3A %25 %5B %5D"

_TLS_OPTIONS = frozenset({
    "ssl_ca_certs", "ssl_ca_path", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile",
    "ssl_password",
})  # fmt: skip
_SHOWN_OPTIONS = frozenset({
    "application_name", "connect_timeout", "host", "hostaddr", "port", "ssl_cert_reqs",
    "ssl_check_hostname", "sslmode", "target_session_attrs", "virtual_host",
})  # fmt: skip


def check_database(url: str) -> None:
    """Returns if the URL names one database and no library can read it in another way.

    Raises:
        ValueError: it doesn't; the message says what is allowed and quotes nothing of the URL.
    """
    if _scheme(url, DATABASES) == "sqlite":
        _check_sqlite(url)
        return
    if "%00" in url:
        raise ValueError("the URL must not hold %00")
    parts = _split(url)
    if parts.path.count("/") > 1:
        raise ValueError(f"after the host there is more than the name of one database. {ESCAPES}")
    _check_host(parts, several=True)
    _options(parts)


def check_broker(url: str) -> None:
    """Returns if the URL names one Redis server and no library can read it in another way.

    Raises:
        ValueError: it doesn't; the message says what is allowed and quotes nothing of the URL.
    """
    scheme = _scheme(url, BROKERS)
    if ";" in url:
        raise ValueError("the URL must name one server: write ; in a password as %3B")
    parts = _split(url)
    options = _options(parts)
    if scheme == "redis+socket":
        if _host_and_port(parts) or not parts.path.strip("/"):
            raise ValueError(
                f"a unix socket is written redis+socket:///path/to.sock?virtual_host=0. {ESCAPES}"
            )
        if set(options) - {"virtual_host"} or not re.fullmatch("[0-9]{0,6}", options.get("virtual_host", "")):
            raise ValueError("a unix socket has one option, virtual_host: the number of the Redis database")
        return
    _check_host(parts)
    if not re.fullmatch("(/[0-9]{0,6})?", parts.path):
        raise ValueError(f"after the host there must be the number of a Redis database, say /0. {ESCAPES}")
    if set(options) - (_TLS_OPTIONS if scheme == "rediss" else set()):
        raise ValueError(f"the options of rediss:// are {', '.join(sorted(_TLS_OPTIONS))}; redis:// has none")
    if options.get("ssl_cert_reqs", "none") not in ("none", "optional", "required"):
        raise ValueError("ssl_cert_reqs must be none, optional or required")


def check_oracle(url: str) -> None:
    """Returns if the URL is the address of an oracle, without any secret: it is stored with every job.

    Raises:
        ValueError: it isn't; the message quotes nothing of the URL.
    """
    _scheme(url, ORACLES)
    if "@" in url or "?" in url or "#" in url:
        raise ValueError(
            "the URL must have no user name, password, ? or #: it is stored with every job. "
            "Set OPENAI_API_KEY for the key"
        )
    _check_host(_split(url))


def without_secrets(url: str) -> str:
    """The URL as it may be shown to people: without user name, password and options that may be secret.

    Of a URL that is refused it shows the scheme at most.
    """
    scheme, _, path = url.partition("://")
    if scheme not in (*DATABASES, *BROKERS, *ORACLES):
        return "…"
    if scheme == "sqlite":
        return f"{scheme}://{unquote(path)}"
    try:
        parts = _split(url)
        _options(parts)
    except ValueError:
        return f"{scheme}://…"
    shown = "&".join(
        option for option in parts.query.split("&") if option.partition("=")[0] in _SHOWN_OPTIONS
    )
    return f"{scheme}://{_host_and_port(parts)}{parts.path}{'?' if shown else ''}{shown}"


def _scheme(url: str, allowed: tuple[str, ...]) -> str:
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in allowed:
        raise ValueError(f"the URL must begin with {', '.join(scheme + '://' for scheme in allowed)}")
    return scheme


def _check_sqlite(url: str) -> None:
    path = url.removeprefix("sqlite://")
    if not path.startswith("/") or path == "/" or "?" in path or not unquote(path).isprintable():
        raise ValueError(
            "the URL must be sqlite:///PATH, for an absolute path sqlite:////PATH, and has no options. "
            "Write ? and % in a path as %3F and %25"
        )


def _split(url: str) -> SplitResult:
    if "#" in url:
        raise ValueError(f"the URL must not hold a #. {ESCAPES}")
    if " " in url or not url.isprintable():
        raise ValueError(
            "the URL holds white space or a character that can't be printed: write it as %20, %0A …"
        )
    if re.search("%(?![0-9A-Fa-f]{2})", url):
        raise ValueError(f"the URL has a % without two hexadecimal digits behind it. {ESCAPES}")
    try:
        # Strict: an escape that is no UTF-8 would silently become another password.
        unquote(url, errors="strict")
        parts = urlsplit(url)
        if parts.port == 0:
            raise ValueError
    except ValueError:
        # The library's own message quotes what it took for the port.
        raise ValueError(f"host, port (1 to 65535) or an escape can't be read. {ESCAPES}") from None
    login = parts.netloc.rpartition("@")[0]
    if "@" in parts.path + parts.query or re.search(r"[@\[\]]", login) or parts.netloc.endswith(":"):
        raise ValueError(f"it isn't clear where the password ends. {ESCAPES}")
    return parts


def _host_and_port(parts: SplitResult) -> str:
    return parts.netloc.rpartition("@")[2]


def _check_host(parts: SplitResult, *, several: bool = False) -> None:
    host = parts.hostname or ""
    if not host and several:
        # libpq then takes the option `host`, or the local socket.
        return
    try:
        if _host_and_port(parts).startswith("["):
            ipaddress.IPv6Address(host)
        elif not re.fullmatch(r"[\w.,-]+" if several else r"[\w.-]+", host):
            raise ValueError
        host.encode("idna")
    except ValueError:
        raise ValueError(f"the URL has no host, or one that can't exist. {ESCAPES}") from None


def _options(parts: SplitResult) -> dict[str, str]:
    """The options behind the ?; of one that is given twice the values are joined by a comma."""
    if parts.query and not all(re.match("[^=]+=.", option) for option in parts.query.split("&")):
        raise ValueError("behind the ? there must be options as name=value. Write & in a value as %26")
    options: dict[str, str] = {}
    for name, value in parse_qsl(parts.query):
        options[name] = f"{options[name]},{value}" if name in options else value
    return options
