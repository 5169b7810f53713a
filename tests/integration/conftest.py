"""Sites for the tests: one machine with nothing configured, and one with real servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.site import Site, site_at


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Embedded: SQLite and a private Valkey in the data directory."""
    with site_at(tmp_path) as one:
        yield one


@pytest.fixture
def server_site(tmp_path: Path, valkey_url: str, postgres_url: str) -> Iterator[Site]:
    """A real Valkey and PostgreSQL."""
    with site_at(tmp_path, DATABASE_URL=postgres_url, REDIS_URL=valkey_url) as one:
        yield one
