"""The schema's history. `worker.store.schema` runs it; there is no alembic.ini."""
