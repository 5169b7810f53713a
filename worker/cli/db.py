"""`loracle db`: the database's schema."""

from __future__ import annotations

import click

from worker.settings import read_settings
from worker.store.engine import make_engine
from worker.store.schema import current_revision, head_revision, upgrade
from worker.urls import without_secrets


@click.group()
def db() -> None:
    """Upgrade the database or show its version."""


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
