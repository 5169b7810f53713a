"""Settings: what is read, what is refused, and that secrets stay secret."""

import errno
import os
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from worker import settings as settings_module
from worker.desk import doctor
from worker.errors import SettingsInvalid
from worker.pool.supervisor import environment
from worker.settings import DOTENV, Settings, find_env_files, read_settings


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("DATABASE_URL", "REDIS_URL", "OPENAI_API_KEY", "OPENAI_BASE_URL", DOTENV):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LORACLE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(settings_module, "CHECKOUT", tmp_path / "checkout")
    for folder in ("home", "checkout", "data"):
        (tmp_path / folder).mkdir()
    (tmp_path / "checkout" / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path / "data")


def test_without_configuration_everything_is_in_the_data_directory(tmp_path: Path) -> None:
    settings = read_settings()
    assert settings.database == f"sqlite:///{tmp_path / 'home' / 'loracle.db'}"
    assert settings.embedded


def test_a_data_directory_with_odd_characters_reaches_sqlite_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "50%25 ?#@é"
    monkeypatch.setenv("LORACLE_HOME", str(home))
    assert make_url(read_settings().database).database == str(home / "loracle.db")


def test_the_environment_outranks_the_data_directorys_env_file_and_that_the_checkouts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout, home = tmp_path / "checkout" / ".env", tmp_path / "home" / ".env"
    checkout.write_text("LORACLE_BATCH_SIZE=1\nLORACLE_MAX_ATTEMPTS=1\nLORACLE_THREADS=1\n")
    home.write_text("LORACLE_BATCH_SIZE=2\nLORACLE_MAX_ATTEMPTS=2\nREDIS_URL=redis://localhost/3\n")
    monkeypatch.setenv("LORACLE_BATCH_SIZE", "3")
    settings = read_settings()
    assert (settings.batch_size, settings.max_attempts, settings.threads) == (3, 2, 1)
    assert not settings.embedded
    assert find_env_files().read == (checkout, home)


def test_a_data_folder_cant_take_the_key_to_another_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The .env of the working directory was read: a downloaded folder could name the server that gets the key.
    planted = tmp_path / "data" / ".env"
    planted.write_text("OPENAI_BASE_URL=https://evil.example/v1\nLORACLE_HOME=/tmp\nLORACLE_DOTENV=yes\n")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hush")
    assert read_settings().openai_base_url is None
    assert find_env_files().ignored == planted


def test_the_checkouts_env_file_may_name_the_data_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LORACLE_HOME")
    (tmp_path / "checkout" / ".env").write_text(f"LORACLE_HOME={tmp_path / 'home'}\n")
    (tmp_path / "home" / ".env").write_text("LORACLE_BATCH_SIZE=5\n")
    assert (read_settings().home, read_settings().batch_size) == (tmp_path / "home", 5)


def test_a_data_directorys_env_file_cant_name_another_data_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LORACLE_HOME")
    monkeypatch.setattr(settings_module.platformdirs, "user_data_path", lambda _: tmp_path / "home")
    (tmp_path / "home" / ".env").write_text("LORACLE_HOME=/elsewhere\n")
    with pytest.raises(SettingsInvalid, match="sets LORACLE_HOME"):
        read_settings()


def test_an_installed_package_has_no_checkout(tmp_path: Path) -> None:
    (tmp_path / "checkout" / "pyproject.toml").unlink()
    (tmp_path / "checkout" / ".env").write_text("LORACLE_BATCH_SIZE=1\n")
    assert read_settings().batch_size == 256


def test_an_env_file_of_the_working_directory_is_read_where_that_is_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "checkout" / ".env").write_text("LORACLE_BATCH_SIZE=1\n")
    monkeypatch.chdir(tmp_path / "checkout")
    assert find_env_files().ignored is None
    assert read_settings().batch_size == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n# fine\nA=1\nhush hush\n", "line 4: this isn't NAME=VALUE"),
        (b"A='hush\n", "line 1"),
        (b"hush\n", "line 1"),
        (b"A=\xff\xfe", "UTF-8"),
        (b"A=\0", "line 1"),
    ],
)
def test_a_file_that_is_no_env_file_is_refused_by_name_and_line(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "home" / ".env").write_bytes(content)
    with pytest.raises(SettingsInvalid, match=message) as refused:
        read_settings()
    assert str(tmp_path / "home" / ".env") in str(refused.value)
    assert "hush" not in str(refused.value)


def test_an_env_file_that_cant_be_read_is_refused_and_a_virtual_environment_of_that_name_isnt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "checkout" / ".env").mkdir()
    assert read_settings().batch_size == 256
    (tmp_path / "home" / ".env").touch()
    # As root everything can be read.
    monkeypatch.setattr(Path, "open", _denied)
    with pytest.raises(SettingsInvalid, match="can't be read: Permission denied"):
        read_settings()


def _denied(path: Path, **_: object) -> str:
    raise PermissionError(errno.EACCES, "Permission denied", str(path))


def test_a_child_process_has_the_same_settings_whatever_its_env_files_say_by_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home" / ".env").write_text("REDIS_URL=redis://:hush@localhost/3\n")
    settings = read_settings()
    (tmp_path / "home" / ".env").write_text("REDIS_URL=redis://elsewhere/3\nLORACLE_ADAPTER=other\n")
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)
    assert read_settings() == settings


@pytest.mark.parametrize("state", ["read", "ignored"])
def test_doctor_says_which_env_files_count(
    state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ("home" if state == "read" else "data") / ".env"
    path.touch()
    found, detail, *_ = doctor._env_files()
    assert found == ("ok" if state == "read" else "warning")
    assert (f"read: {path}" if state == "read" else "read: none; ignored: ./.env") in detail


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("LORACLE_DTYPE", "int8", "'bf16'"),
        ("DATABASE_URL", "mysql://root@localhost/db", "sqlite://, postgresql://"),
        ("REDIS_URL", "localhost:6379", "redis://"),
        ("LORACLE_DEVICE", "gpu", "cuda:1"),
        ("LORACLE_BATCH_SIZE", "many", "a whole number, such as 64"),
        ("LORACLE_LEASE_S", "0", "more than 0"),
        ("LORACLE_LOG_LEVEL", "loud", "'DEBUG', 'INFO'"),
    ],
)
def test_a_wrong_value_names_the_variable_and_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, allowed: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsInvalid) as caught:
        read_settings()
    assert str(caught.value).startswith(f"{variable}: ")
    assert allowed in str(caught.value)
    # A pattern or a sentence of pydantic was shown as it is.
    assert "Input should" not in str(caught.value)
    assert "pattern" not in str(caught.value)


def test_postgresql_without_redis_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://loracle:hush@db/loracle")
    with pytest.raises(SettingsInvalid, match="REDIS_URL") as caught:
        read_settings()
    assert "hush" not in str(caught.value)


def test_no_secret_shows_in_a_settings_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://loracle:hush@db/loracle")
    monkeypatch.setenv("REDIS_URL", "redis://:hush@redis/0")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hush")
    settings: Settings = read_settings()
    assert "hush" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LORACLE_HOME", "~nobodyatall/x"),
        ("LORACLE_LEASE_S", "inf"),
        ("LORACLE_BULK_POLL_S", "1e999"),
        ("LORACLE_THREADS", "9" * 60),
        ("LORACLE_WORKER_NAME", "\udcff"),
        ("OPENAI_API_KEY", "hush\udcff"),
        ("OPENAI_API_KEY", "hush\nhush"),
    ],
)
def test_what_would_break_later_is_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsInvalid, match=name) as refused:
        read_settings()
    assert "hush" not in str(refused.value)


def test_an_env_file_too_large_for_memory_is_refused(tmp_path: Path) -> None:
    own = tmp_path / "home" / ".env"
    own.write_text("A=1\n")
    os.truncate(own, 5 * 1024**3)
    with pytest.raises(SettingsInvalid, match="more than 1,048,576 characters"):
        read_settings()


def test_an_env_file_whose_values_multiply_is_refused(tmp_path: Path) -> None:
    laughs = "A=0123456789\n" + "".join(f"{chr(66 + at)}={f'${{{chr(65 + at)}}}' * 10}\n" for at in range(12))
    (tmp_path / "home" / ".env").write_text(laughs)
    with pytest.raises(SettingsInvalid, match="line 6"):
        read_settings()
    (tmp_path / "home" / ".env").write_text("A=7\nLORACLE_THREADS=${A}\nLORACLE_BATCH_SIZE=${NONE:-5}\n")
    assert (read_settings().threads, read_settings().batch_size) == (7, 5)


def test_a_secret_may_stand_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "url").write_text("redis://:hush@localhost/3\n")
    monkeypatch.setenv("REDIS_URL_FILE", str(tmp_path / "url"))
    settings = read_settings()
    assert settings.redis_url is not None
    assert settings.redis_url.get_secret_value() == "redis://:hush@localhost/3"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "can't be read: No such file"),
        ("\n", "is empty"),
        ("http://:hush@h\n", "REDIS_URL: the URL must"),
    ],
)
def test_a_file_without_a_sound_secret_is_refused_by_name(
    content: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL_FILE", str(tmp_path / "url"))
    if content is not None:
        (tmp_path / "url").write_text(content)
    with pytest.raises(SettingsInvalid, match=message) as refused:
        read_settings()
    assert "hush" not in str(refused.value)


def test_a_secret_in_two_places_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://h")
    monkeypatch.setenv("REDIS_URL_FILE", str(tmp_path / "url"))
    with pytest.raises(SettingsInvalid, match="REDIS_URL and REDIS_URL_FILE are both set"):
        read_settings()
