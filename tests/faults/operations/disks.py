"""A disk that is full: while a file is enqueued, and while labels are written."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg

from tests import services
from tests.faults.nemesis.servers import TEMPLATE, new_sqlite, postgres_database
from tests.faults.nemesis.stage import Stage, some_time, stage
from tests.faults.operations.commands import run
from tests.faults.operations.servers import maintenance, name_of
from tests.faults.scenario import DidNotStrikeError, Struck
from tests.integration.site import reviews
from worker.scorers.stub import stub_score

TEXTS = [f"{'and so on ' * 60}{text}" for text in reviews(6000)]
MEGABYTE = 2**20
LARGE, LITTLE = 200 * MEGABYTE, 2 * MEGABYTE
"""A part of the texts fits into the latter."""
FULL = "the database's disk is full"
CHUNK = 4096


class Disk:
    """A file system in memory for the database, made by root.

    Raises:
        ServiceUnavailableError: it can't be mounted here.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="lod"))
        self._mount(f"size={LARGE},mode=777")
        self._ballast = self.folder / "ballast"

    def __enter__(self) -> Disk:
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "--lazy", self.folder], check=True)
        self.folder.rmdir()

    def leave(self, size: int) -> None:
        """So many bytes are free."""
        used = shutil.disk_usage(self.folder).used
        self._mount(f"remount,size={used + size}")

    def fill(self) -> None:
        """Not a byte is free."""
        with self._ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(CHUNK))
            except OSError:
                return

    def clear(self) -> None:
        """There is room again."""
        self._ballast.unlink()

    def _mount(self, options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", self.folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise services.ServiceUnavailableError(f"nothing can be mounted here: {done.stderr.strip()}")


LIMITED = """
if HOME:
    from sqlalchemy import Engine, event
    @event.listens_for(Engine, "begin")
    def limit(connection):
        try:
            with open(os.path.join(HOME, "tmp", "pages")) as file:
                pages = file.read()
        except FileNotFoundError:
            pages = "1073741823"
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages or 1}")
"""
"""A SQLite file that grows to so many pages, asked for before each transaction; to those that it has, for 1."""


class Pages:
    """What a disk is to a SQLite file where nobody can make one: it may have so many pages and no more."""

    def __init__(self, home: Path) -> None:
        self._database, self._limit = home / "loracle.db", home / "tmp" / "pages"

    def leave(self, size: int) -> None:
        """So many bytes are free."""
        with closing(sqlite3.connect(self._database)) as connection:
            [(pages,)] = connection.execute("PRAGMA page_count").fetchall()
        self._limit.write_text(str(pages + size // CHUNK))

    def fill(self) -> None:
        """Not a page is free."""
        self._limit.write_text("1")

    def clear(self) -> None:
        """There is room again."""
        self._limit.unlink()


@contextmanager
def _database_on(disk: Disk, *, postgres: bool) -> Iterator[str]:
    """The URL of a database with the schema whose rows lie on this disk, but not PostgreSQL's log of changes."""
    if not postgres:
        path = disk.folder / "loracle.db"
        new_sqlite(path)
        yield f"sqlite:///{path}"
        return
    space = disk.folder / "space"
    space.mkdir()
    shutil.chown(space, services.NOBODY, services.NOBODY)
    with postgres_database() as url, psycopg.connect(maintenance(url), autocommit=True) as connection:
        name = name_of(url)
        connection.execute(f"CREATE TABLESPACE {name} LOCATION '{space}'".encode())
        connection.execute(f"DROP DATABASE {name}".encode())
        connection.execute(
            f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} TABLESPACE {name} STRATEGY file_copy".encode()
        )
        try:
            yield url
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
            connection.execute(f"DROP TABLESPACE {name}".encode())
            # Who made it drops it once more.
            connection.execute(f"CREATE DATABASE {name}".encode())


@contextmanager
def _stage_on_a_small_disk(seed: int, folder: Path) -> Iterator[tuple[Stage, Disk | Pages]]:
    variables = {"LORACLE_STUB_DELAY_S": "0.05"}
    if os.geteuid() != 0:
        with stage(seed, folder, code=LIMITED, variables=variables) as one:
            yield one, Pages(one.site.home)
        return
    with (
        Disk() as disk,
        _database_on(disk, postgres=seed % 2 == 1) as url,
        stage(seed, folder, variables={**variables, "DATABASE_URL": url}) as one,
    ):
        yield one, disk


def disk_full(seed: int, folder: Path) -> Struck:
    """A file doesn't fit, and the same command goes on once there is room; then nothing can be written while workers
    have labels, until there is room again."""
    with _stage_on_a_small_disk(seed, folder) as (one, disk):
        site = one.site
        path = site.home / "reviews.txt"
        path.write_text("".join(f"{text}\n" for text in TEXTS))
        arguments = ("enqueue", str(path), "--adapter", "stub", "--batch-size", "50")
        disk.leave(LITTLE)
        code, said = run(site, *arguments)
        assert code == 1, said
        assert FULL in said, said
        [(read, state)] = one.rows("SELECT records_read, state FROM jobs")
        assert 0 < read < len(TEXTS), read
        assert state == "reading"
        disk.leave(LARGE)
        code, said = run(site, *arguments)
        assert code == 0, said
        assert f"is taken up again after {read:,} records" in said, said
        worker = site.start("--children", "2")
        site.wait_for_labels(1, one.chance.randrange(100, 2000))
        disk.fill()
        site.until(lambda: FULL in site.said or not one.open_jobs())
        if not one.open_jobs():
            raise DidNotStrikeError
        some_time(one.chance, 5.0)
        disk.clear()
        recovery_s = one.until_label()
        site.wait(1)
        assert site.labels(1) == {row: stub_score(text).label for row, text in enumerate(TEXTS, 1)}
        assert worker.poll() is None, "the worker gave up"
        assert not site.deaths, site.deaths
        one.end()
        return Struck(recovery_s)
