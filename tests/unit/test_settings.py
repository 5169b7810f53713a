"""Settings: what is read, what is refused, and that secrets stay secret."""

from pathlib import Path

import pytest

from worker.errors import SettingsInvalid
from worker.settings import Settings, read_settings, without_password


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("DATABASE_URL", "REDIS_URL", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_without_configuration_everything_is_in_the_data_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LORACLE_HOME", str(tmp_path / "home"))
    settings = read_settings()
    assert settings.database == f"sqlite:///{tmp_path / 'home' / 'loracle.db'}"
    assert settings.embedded


def test_a_dotenv_file_is_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("LORACLE_BATCH_SIZE=17\nREDIS_URL=redis://localhost/3\n")
    settings = read_settings()
    assert settings.batch_size == 17
    assert not settings.embedded


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("LORACLE_BATCH_SIZE", "many", "integer"),
        ("LORACLE_DTYPE", "int8", "'bf16'"),
        ("LORACLE_LEASE_S", "0", "greater than 0"),
        ("DATABASE_URL", "mysql://root@localhost/db", "sqlite://, postgresql://"),
        ("REDIS_URL", "localhost:6379", "redis://"),
    ],
)
def test_a_wrong_value_names_the_variable_and_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, allowed: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsInvalid) as caught:
        read_settings()
    assert variable in str(caught.value)
    assert allowed in str(caught.value)


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
    assert without_password(settings.database) == "postgresql://loracle:***@db/loracle"
