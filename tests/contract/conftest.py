"""The store under test: each test runs on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from tests.contract.asking import sums_agree
from worker.store.ledger import Ledger
from worker.store.queries import Queries


@pytest.fixture
def ledger(engine: Engine) -> Ledger:
    return Ledger(engine, max_attempts=3, lease_s=3600.0, unheard_after_s=600.0)


@pytest.fixture
def queries(engine: Engine) -> Queries:
    return Queries(engine)


@pytest.fixture
def exact_sums(engine: Engine) -> Iterator[None]:
    """Whatever a test does: what a job has spent is exactly the sum of its reservations."""
    yield
    assert sums_agree(engine)
