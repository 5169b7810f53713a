"""The databases that benchmarks of SQL run on."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

from sqlalchemy import Engine

from tests import services
from worker.store.engine import make_engine
from worker.store.schema import upgrade


def engines() -> Iterator[Engine]:
    """An empty database of our schema in SQLite, then one in PostgreSQL where its binaries are installed."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        urls = [f"sqlite:///{folder / 'loracle.db'}"]
        with suppress(services.ServiceUnavailableError):
            urls.append(stack.enter_context(services.postgres()))
        for url in urls:
            engine = make_engine(url)
            upgrade(engine)
            yield engine
            engine.dispose()
