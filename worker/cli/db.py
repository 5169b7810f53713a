"""`loracle db`: the schema's version, and the database's care."""

from __future__ import annotations

from pathlib import Path

import click

from worker.bootstrap import open_store
from worker.cli.common import echo_json, json_option, note
from worker.errors import DatabaseBusy, DatabaseUnsound, Invalid
from worker.reviews import file_size
from worker.settings import read_settings
from worker.store.care import back_up, broken_promises
from worker.store.engine import make_engine, rewrite_sqlite
from worker.store.schema import current_revision, head_revision, upgrade
from worker.urls import without_secrets


@click.group()
def db() -> None:
    """Upgrade, check or back up the database, or overwrite its free space.

    \b
    Example:
      loracle db backup loracle-backup.db
    """


@db.command("upgrade")
def upgrade_command() -> None:
    """Bring the database to the schema of this version. Safe to repeat, and from several hosts at once.

    \b
    Example:
      loracle db upgrade
    """
    settings = read_settings()
    engine = make_engine(settings.database)
    before = current_revision(engine)
    upgrade(engine)
    name = without_secrets(settings.database)
    if before == head_revision():
        click.echo(f"{name} is up to date ({before}).")
    else:
        click.echo(f"{name} upgraded from {before or 'empty'} to {head_revision()}.")


@db.command("current")
def current() -> None:
    """Show the schema version of the database and of this program.

    \b
    Example:
      loracle db current
    """
    settings = read_settings()
    engine = make_engine(settings.database)
    found, needed = current_revision(engine), head_revision()
    name = without_secrets(settings.database)
    has = "no schema yet" if found is None else f"schema version '{found}'"
    if found == needed:
        click.echo(f"{name} has {has}, the one that this program needs.")
    else:
        click.echo(f"{name} has {has}; this program needs '{needed}': see `loracle db upgrade --help`.")


@db.command("check")
@json_option
def check(as_json: bool) -> None:
    """Check that the database is sound: its pages (SQLite), its indexes, and what the ledger promises.

    It reads everything, a minute for some million reviews, and no worker waits. Exit code 1 if something is wrong.
    The pages of PostgreSQL are checked by its own `pg_amcheck`.

    \b
    Example:
      loracle db check
    """
    settings = read_settings()
    engine = make_engine(settings.database)
    broken = broken_promises(engine)
    name = without_secrets(settings.database)
    if as_json:
        echo_json({"database": name, "ok": not broken, "broken": broken})
    for one in broken:
        note(f"Wrong: {one}")
    if broken:
        raise DatabaseUnsound(
            f"{name} isn't sound. Stop the workers, keep a copy of its files, and restore the last backup that is "
            "(`loracle db backup --help` says how)."
        )
    if not as_json:
        click.echo(f"{name} is sound.")


@db.command("vacuum")
def vacuum() -> None:
    """Rewrite a SQLite database without its free space: nothing that was deleted is left in its files.

    Other writers wait for it, about a second for each 200 MB. It needs as much free disk as the database has.

    \b
    Example:
      loracle db vacuum
    """
    settings = read_settings()
    engine = make_engine(settings.database)
    if engine.dialect.name != "sqlite":
        raise Invalid(
            "this is for SQLite: PostgreSQL's own VACUUM does it, by itself or by the command `vacuumdb`."
        )
    if not rewrite_sqlite(engine, whole=True):
        raise DatabaseBusy(
            "the database couldn't be rewritten: other processes hold it, or the disk has no room for a copy. "
            "Stop `loracle worker`, or make room, and try again."
        )
    click.echo(f"{without_secrets(settings.database)} is rewritten.")


@db.command("backup")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@json_option
def backup(file: Path, force: bool, as_json: bool) -> None:
    """Copy the database to FILE while workers write: as it is at one moment, and checked before FILE appears.

    Of SQLite FILE is a database again; PostgreSQL is dumped by `pg_dump --format=custom`, which must be on this host.
    FILE holds the texts of all reviews, and only its owner may read it.

    To restore, first stop all that uses the database: workers, `loracle web`, running commands. SQLite: put FILE in
    the place of the database, and remove the files beside it that end with -wal and -shm. PostgreSQL: `createdb NEW`,
    `pg_restore --no-owner --dbname=NEW FILE`, and set DATABASE_URL to NEW. Then start the workers. Unfinished jobs go
    on by themselves. Reviews that got a label after the backup are scored again. Reviews that the oracle was asked
    about after the backup are paid for a second time.

    \b
    Example:
      loracle db backup loracle-backup.db
    """
    settings = read_settings()
    open_store(settings)
    engine = make_engine(settings.database)
    back_up(engine, file, force=force)
    size = file.stat().st_size
    if as_json:
        echo_json({"database": without_secrets(settings.database), "file": str(file), "bytes": size})
    else:
        click.echo(
            f"{without_secrets(settings.database)} is copied to {file} ({file_size(size)}), and checked."
        )
