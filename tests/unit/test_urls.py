"""URLs: what is refused, that all libraries read the rest alike, and that no secret is shown."""

from __future__ import annotations

import os
from collections.abc import Callable
from unittest.mock import patch
from urllib.parse import quote, unquote

import pytest
import redis.connection
from hypothesis import given, settings
from hypothesis import strategies as st
from kombu.utils.url import parse_url, url_to_parts
from sqlalchemy.engine import make_url

from worker.cli import main
from worker.errors import BrokerUnreachable, DatabaseUnreachable, SettingsInvalid
from worker.oracle.throttle import connect
from worker.pool.app import make_app, ping, publisher
from worker.settings import DOTENV, read_settings
from worker.store.engine import address, make_engine, read
from worker.urls import check_broker, check_database, check_oracle, without_secrets

# {} is where a secret stands; nobody listens on port 1.
DATABASES = (
    "postgresql://u:{}@127.0.0.1:1/db",
    "postgresql://u:{}@127.0.0.1:1/db?sslmode=require",
    "postgresql+psycopg://{}:x@127.0.0.1:1/db",
    "postgresql://127.0.0.1:1/db?password={}",
    "postgresql://127.0.0.1:1/db?sslmode=prefer&sslpassword={}",
    "postgresql://127.0.0.1:1/db?passfile={}",
    "postgresql+psycopg://u:{}@/db?host=/nowhere",
)
BROKERS = (
    "redis://:{}@127.0.0.1:1/0",
    "redis://u:{}@127.0.0.1:1",
    "redis://{}@127.0.0.1:1/0",
    "rediss://u:{}@[::1]:1/0?ssl_cert_reqs=none",
    "rediss://127.0.0.1:1/0?ssl_password={}",
    "redis+socket://:{}@/nowhere/x.sock?virtual_host=1",
)
ORACLES = ("https://u:{}@127.0.0.1:1/v1", "https://127.0.0.1:1/v1?key={}", "https://127.0.0.1:1/v1#{}")
LETTERS = "QXZJV"

secrets = st.text(LETTERS * 3 + "#/?@:%[]&=;+,.\\ \n\t'\"é℀５0", min_size=1, max_size=24)
passwords = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


def pieces(secret: str) -> set[str]:
    """Parts of a secret that no ordinary message holds."""
    windows = {secret[at : at + 4].casefold() for at in range(len(secret) - 3)}
    return {window for window in windows if sum(letter in LETTERS.casefold() for letter in window) > 2}


def failing_to_connect(name: str, url: str) -> list[str]:
    """What is said when the settings are accepted and the server isn't there."""
    found = read_settings()
    said = [without_secrets(url), repr(found)]
    if name == "DATABASE_URL":
        engine = make_engine(found.database)
        said.append(address(engine))
        with pytest.raises(DatabaseUnreachable) as away, read(engine):
            pass
        engine.dispose()
        return [*said, str(away.value)]
    if name == "REDIS_URL":
        app = make_app(found)
        for ask in (ping, lambda app: publisher(app)("adapter", [1])):
            with pytest.raises(BrokerUnreachable) as gone:
                ask(app)
            said.append(str(gone.value))
        app.close()
    return said


@settings(deadline=None, max_examples=120)
@given(
    st.sampled_from(
        [
            *(("DATABASE_URL", url) for url in DATABASES),
            *(("REDIS_URL", url) for url in BROKERS),
            *(("OPENAI_BASE_URL", url) for url in ORACLES),
        ]
    ),
    secrets,
)
def test_a_raw_secret_in_a_url_is_never_shown(where: tuple[str, str], secret: str) -> None:
    name, form = where
    url = form.format(secret)
    environment = {"REDIS_URL": "redis://127.0.0.1:1", name: url, DOTENV: "no", "OPENAI_API_KEY": ""}
    with patch.dict(os.environ, environment):
        try:
            said = failing_to_connect(name, url)
        except SettingsInvalid as error:
            said = [str(error), without_secrets(url)]
    for text in said:
        assert not any(piece in text.casefold() for piece in pieces(secret))
        assert "\n" not in text


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(DATABASES[:2]), st.sampled_from(BROKERS[:2]), passwords)
def test_a_percent_encoded_password_reaches_every_library_unchanged(
    database: str, broker: str, password: str
) -> None:
    encoded = quote(password, safe="")
    check_database(database.format(encoded))
    assert make_url(database.format(encoded)).password == password
    make_engine(database.format(encoded))
    for url in (broker.format(encoded), BROKERS[-1].format(encoded)):
        check_broker(url)
        assert url_to_parts(url.replace("redis+", "")).password == password
        with connect(url) as client:
            assert client.connection_pool.connection_kwargs["password"] == password


@settings(deadline=None, max_examples=200)
@given(st.sampled_from([*DATABASES[:3], *BROKERS[:3]]), secrets)
def test_whatever_is_accepted_is_read_alike_by_all_libraries(form: str, secret: str) -> None:
    url = form.format(secret)
    try:
        (check_database if form in DATABASES else check_broker)(url)
    except ValueError:
        return
    if form in DATABASES:
        parsed = make_url(url)
        found = [(parsed.username or None, parsed.password or None, parsed.host, parsed.port)]
    else:
        by_kombu, by_redis = parse_url(url), redis.connection.parse_url(url)
        found = [
            (by_kombu["userid"], by_kombu["password"], by_kombu["hostname"], by_kombu["port"]),
            (by_redis.get("username"), by_redis.get("password"), by_redis["host"], by_redis["port"]),
        ]
    user, _, password = form.format(unquote(secret)).partition("://")[2].rpartition("@")[0].partition(":")
    if ":" not in secret:
        assert found == [(user or None, password or None, "127.0.0.1", 1)] * len(found)
    assert {one[2:] for one in found} == {("127.0.0.1", 1)}


@pytest.mark.parametrize(
    ("check", "url", "shown"),
    [
        (check_database, "sqlite:////tmp/with space/é@#.db", "sqlite:////tmp/with space/é@#.db"),
        (check_database, "sqlite:////tmp/50%25%3F.db", "sqlite:////tmp/50%?.db"),
        (check_database, "sqlite:///relative.db", "sqlite:///relative.db"),
        (check_database, r"sqlite:///C:\data\x.db", r"sqlite:///C:\data\x.db"),
        (check_database, "postgresql:///db", "postgresql:///db"),
        (check_database, "postgresql://u:p@[::1]:5432/db", "postgresql://[::1]:5432/db"),
        (check_database, "postgresql://u:a:b@h1,h2/db", "postgresql://h1,h2/db"),
        (
            check_database,
            "postgresql+psycopg://u:p@/db?host=/var/run/postgresql&sslmode=require&passfile=/x",
            "postgresql+psycopg:///db?host=/var/run/postgresql&sslmode=require",
        ),
        (
            check_database,
            "postgresql://u:p@/db?host=a:1&host=b:2&password=x",
            "postgresql:///db?host=a:1&host=b:2",
        ),
        (check_broker, "redis://h", "redis://h"),
        (check_broker, "rediss://:p@my_redis.example.com:6380/15", "rediss://my_redis.example.com:6380/15"),
        (
            check_broker,
            "rediss://u:p@h/0?ssl_cert_reqs=required&ssl_ca_certs=/ca.pem&ssl_password=x",
            "rediss://h/0?ssl_cert_reqs=required",
        ),
        (
            check_broker,
            "redis+socket:///run/x%20y.sock?virtual_host=1",
            "redis+socket:///run/x%20y.sock?virtual_host=1",
        ),
        (check_oracle, "http://localhost:8000/v1/", "http://localhost:8000/v1/"),
    ],
)
def test_a_sound_url_is_accepted_and_shown_without_its_secrets(
    check: Callable[[str], None], url: str, shown: str
) -> None:
    check(url)
    assert without_secrets(url) == shown


@pytest.mark.parametrize(
    ("check", "url"),
    [
        (check_broker, "redis://:secret#x@127.0.0.1:1/0"),
        (check_broker, "redis://:a/b@h/0"),
        (check_broker, "redis://:a?b@h/0"),
        (check_broker, "redis://:a[b]@h/0"),
        (check_broker, "redis://:a;b@h/0"),
        (check_broker, "redis://h/abc"),
        (check_broker, "redis://h/1/2"),
        (check_broker, "redis://h:99999/0"),
        (check_broker, "redis://h:0/0"),
        (check_broker, "redis://h:/0"),
        (check_broker, "redis://:p@/0"),
        (check_broker, "redis://h..h/0"),
        (check_broker, "redis://[::1/0"),
        (check_broker, "redis://h/0?password=p"),
        (check_broker, "rediss://h/0?ssl_cert_reqs=CERT_NONE"),
        (check_broker, "redis+socket://h/x.sock"),
        (check_broker, "redis+socket:///x.sock?db=1"),
        (check_broker, "REDIS://h"),
        (check_broker, "redis:h"),
        (check_database, "postgresql://u:p@ss@h/db"),
        (check_database, "postgresql://u:12/3@h/db"),
        (check_database, "postgresql://u:50%off@h/db"),
        (check_database, "postgresql://u:%ff@h/db"),
        (check_database, "postgresql://u:a b@h/db"),
        (check_database, "postgresql://h1:1,h2:2/db"),
        (check_database, "postgresql://h/db/more"),
        (check_database, "postgresql://h/db?password=a&b"),
        (check_database, "postgresql://u:%00@h/db"),
        (check_database, "sqlite://"),
        (check_database, "sqlite://user:p@h/db"),
        (check_database, "sqlite:///x.db?uri=true"),
        (check_oracle, "https://u:p@h/v1"),
        (check_oracle, "https://h/v1?key=p"),
        (check_oracle, "https:///v1"),
    ],
)
def test_an_ambiguous_url_is_refused(check: Callable[[str], None], url: str) -> None:
    with pytest.raises(ValueError, match=r"must|read|clear|digits|host|white|database") as refused:
        check(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "query", ["foo=secret", "sslmode=disable&sslmode=secret", "host=a:secret&host=b", "plugin=secret"]
)
def test_an_option_that_the_driver_does_not_know_is_refused_before_it_connects(query: str) -> None:
    with pytest.raises(SettingsInvalid, match="DATABASE_URL") as refused:
        make_engine(f"postgresql://h/db?{query}")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "command", ["doctor", "enqueue x.csv", "worker", "run x.csv", "status 1", "db upgrade"]
)
@pytest.mark.parametrize(
    ("variable", "url"),
    [
        ("REDIS_URL", "redis://:qxzj#x@127.0.0.1:1/0"),
        ("REDIS_URL", "redis://qxzj/abc"),
        ("REDIS_URL", "redis://:qxzj@127.0.0.1:99999/0"),
        ("DATABASE_URL", "postgresql://u:p@qxzj@127.0.0.1:1/db"),
        ("OPENAI_BASE_URL", "https://qxzj@127.0.0.1:1/v1"),
    ],
)
def test_every_command_refuses_alike(
    command: str, variable: str, url: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"REDIS_URL": "redis://127.0.0.1:1", DOTENV: "no", variable: url}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as end:
        main(command.split())
    said = "".join(capfd.readouterr())
    assert end.value.code == 2
    assert f" {variable}: " in said
    assert "qxzj" not in said
    # A finding of `doctor` has lines of its own for why and what to do.
    lines = [line for line in said.splitlines() if not line.startswith(("ok", "warning", " "))]
    assert len(lines) == 1
