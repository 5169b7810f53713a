"""`loracle db`: the database's schema."""

from __future__ import annotations

import click

from worker.errors import DatabaseBusy, Invalid
from worker.settings import read_settings
from worker.store.engine import make_engine, rewrite_sqlite
from worker.store.schema import current_revision, head_revision, upgrade
from worker.urls import without_secrets


@click.group()
def db() -> None:
    """Upgrade the database, show its version, or overwrite its free space."""


@db.command("upgrade")
def upgrade_command() -> None:
    """Bring the database to the schema of this version. Safe to repeat, and from several hosts at once."""
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
    """Show the schema version of the database and of this program."""
    settings = read_settings()
    engine = make_engine(settings.database)
    click.echo(f"database {current_revision(engine) or 'empty'}, this version needs {head_revision()}")


@db.command("vacuum")
def vacuum() -> None:
    """Rewrite a SQLite database without its free space: nothing that was deleted is left in its files.

    Writers wait for it, a second for each 200 MB or so; it needs as much disk again.
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
