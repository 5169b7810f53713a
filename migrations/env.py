"""How Alembic meets the database: on the connection, and in the transaction, of whoever called it."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, Engine

from worker.store.tables import Table


def migrate(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Table.metadata,
        compare_type=True,
        render_as_batch=True,
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes["connection"]
if isinstance(given, Engine):
    with given.begin() as connection:
        migrate(connection)
else:
    migrate(given)
