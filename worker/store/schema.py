"""The schema's version: brought up to date by Alembic, checked before anything else is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, inspect, text

from worker.errors import SchemaMismatch
from worker.store.engine import address, read, retrying
from worker.store.inserts import on_postgresql

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "initial"
"""The newest revision of `migrations`. It stands here so that a command whose database fits needn't load Alembic."""
UPGRADE_LOCK = 0x10AC1E
LOCK_TIMEOUT_S = 30


def upgrade(engine: Engine) -> None:
    """Brings the database to this version's schema, in one transaction; several at once wait for each other.

    Raises:
        SchemaMismatch: a newer Loracle has upgraded it further.
        DatabaseUnreachable: the server is away.
    """
    current = current_revision(engine)
    if current == head_revision():
        return
    from alembic import command

    if current not in (None, *_known()):
        check_schema(engine)

    def once() -> None:
        with engine.begin() as connection:
            if on_postgresql(connection):
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": UPGRADE_LOCK})
                # A long-running read must not make every later query queue behind our ALTER TABLE.
                connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_S}s'"))
            command.upgrade(alembic_config(connection), "head")

    retrying(once, attempts=2)


def check_schema(engine: Engine) -> None:
    """Returns if the database has this version's schema.

    Raises:
        SchemaMismatch: it is empty, behind or ahead; the message says which and what to do.
        DatabaseUnreachable: the server is away.
    """
    current, head = current_revision(engine), head_revision()
    if current == head:
        return
    where = f"the database {address(engine)}"
    if current is None:
        raise SchemaMismatch(f"{where} is empty: run `loracle db upgrade`.")
    if current in _known():
        raise SchemaMismatch(
            f"{where} is at revision {current}, this Loracle needs {head}: run `loracle db upgrade`."
        )
    raise SchemaMismatch(
        f"{where} is at revision {current}, which this Loracle doesn't know: "
        "this database was upgraded by a newer Loracle. Install that version or a later one."
    )


def current_revision(engine: Engine) -> str | None:
    """The database's revision; None if it has no schema yet."""
    with read(engine) as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
        return found


def head_revision() -> str:
    """The revision this version works with."""
    return HEAD


def alembic_config(connection: Connection | Engine | None = None) -> Config:
    """Alembic, configured in code: there is no alembic.ini in an installed package."""
    from alembic.config import Config

    import migrations

    config = Config()
    # Alembic interpolates % in its options.
    config.set_main_option("script_location", next(iter(migrations.__path__)).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _known() -> frozenset[str]:
    from alembic.script import ScriptDirectory

    script = ScriptDirectory.from_config(alembic_config())
    return frozenset(revision.revision for revision in script.walk_revisions())
