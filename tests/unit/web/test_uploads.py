"""Uploaded files: kept in LORACLE_HOME, gone after reading and after a crash; paths only below named folders."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from worker.errors import FileUnreadable, OptionInvalid
from worker.settings import Settings
from worker.web import uploads as module
from worker.web.uploads import Uploads, readable_path


def settings(home: Path, **more: object) -> Settings:
    return Settings(_env_file=None, home=home, **more)


def test_uploads_of_a_process_that_was_killed_are_deleted_and_those_of_one_that_lives_are_not(
    tmp_path: Path,
) -> None:
    code = (
        "import os, sys; from pathlib import Path; from worker.settings import Settings\n"
        "from worker.web.uploads import Uploads\n"
        "kept = Uploads(Settings(_env_file=None, home=Path(sys.argv[1]))).new('a.csv')\n"
        "kept.path.write_text('text'); print(kept.path, flush=True); os.kill(os.getpid(), 9)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    left = Path(found.stdout.strip())
    assert left.is_file()
    assert left.is_relative_to(tmp_path)
    living, other = Uploads(settings(tmp_path)), Uploads(settings(tmp_path))
    kept = living.new("b.csv")
    kept.path.write_text("text")
    _ = other.folder
    assert not left.exists()
    assert kept.path.exists()
    assert kept.path.parent.stat().st_mode & 0o077 == 0
    living.close()
    other.close()
    assert list((tmp_path / "web-uploads").iterdir()) == []


def test_an_upload_that_nobody_made_a_job_of_goes_after_an_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads = Uploads(settings(tmp_path))
    old = uploads.new("old.csv")
    old.path.write_text("text")
    assert uploads.find(old.key).path == old.path
    os.utime(old.path.parent, (0, 0))
    uploads.new("new.csv")
    with pytest.raises(FileUnreadable, match="Upload it again"):
        uploads.find(old.key)
    for key in ("", "..", "../" + old.key, "x" * 22):
        with pytest.raises(FileUnreadable):
            uploads.find(key)
    uploads.close()


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\ann\\reviews.csv", "reviews.csv"),
        ("..", "upload"),
        ("a\0b\n.csv", "ab.csv"),
        ("é" * 300 + ".csv", "é" * 98 + ".csv"),
        ("", "upload"),
    ],
)
def test_a_name_is_only_a_name(tmp_path: Path, given: str, kept: str) -> None:
    uploads = Uploads(settings(tmp_path))
    assert uploads.new(given).path.name == kept
    uploads.close()


def test_a_path_is_read_only_below_the_named_folders(tmp_path: Path) -> None:
    data, outside = tmp_path / "data", tmp_path / "data-of-others"
    for folder in (data, outside):
        folder.mkdir()
        (folder / "a.csv").write_text("text\nx\n")
    (data / "link.csv").symlink_to(outside / "a.csv")
    (data / "folder").symlink_to(outside)
    os.mkfifo(data / "pipe")
    found = settings(tmp_path, web_folders=f"{data}:")
    assert readable_path(found, str(data / "a.csv")) == data / "a.csv"
    assert readable_path(found, "a.csv") == data / "a.csv"
    refused = [
        str(outside / "a.csv"), "link.csv", "folder/a.csv", "../data-of-others/a.csv", "/etc/passwd",
        "/proc/self/environ", "pipe", "a\0.csv", str(data) + "-of-others/a.csv",
    ]  # fmt: skip
    for given in refused:
        with pytest.raises(OptionInvalid):
            readable_path(found, given)
    with pytest.raises(OptionInvalid, match="LORACLE_WEB_FOLDERS"):
        readable_path(settings(tmp_path), str(data / "a.csv"))


def test_the_folders_are_absolute(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="absolute"):
        settings(tmp_path, web_folders="data")


def test_only_so_many_are_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_READ", 1)
    uploads = Uploads(settings(tmp_path))
    with uploads.reading(), pytest.raises(module.Refused, match="try again"), uploads.reading():
        pass
    with uploads.reading():
        pass
