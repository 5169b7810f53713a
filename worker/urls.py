"""URLs of servers: which are refused, and how one is shown without its secrets."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

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
