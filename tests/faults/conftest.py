"""The sites of the integration tests."""

from __future__ import annotations

from tests.integration.conftest import server_site, site

__all__ = ["server_site", "site"]
