"""Dates as people type them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import click
import pytest

from worker.desk.results import DATE, iso


@pytest.fixture
def in_nepal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A local time that is 5:45 before UTC."""
    monkeypatch.setenv("TZ", "XXX-5:45")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("in_nepal")
@pytest.mark.parametrize(
    ("typed", "moment"),
    [
        ("2026-11-24", "2026-11-23T18:15:00.000Z"),
        ("2026-11-24 06:00", "2026-11-24T00:15:00.000Z"),
        ("2026-11-24T06:00:30", "2026-11-24T00:15:30.000Z"),
        ("2026-11-24 06:00:30", "2026-11-24T00:15:30.000Z"),
        ("2026-11-24T00:15:30.500Z", "2026-11-24T00:15:30.500Z"),
        ("2026-11-24T06:00Z", "2026-11-24T06:00:00.000Z"),
        ("2026-11-24T06:00+02:00", "2026-11-24T04:00:00.000Z"),
    ],
)
def test_a_date_is_local_unless_it_names_its_zone(typed: str, moment: str) -> None:
    assert iso(DATE.convert(typed, None, None).timestamp()) == moment


@pytest.mark.parametrize("typed", ["yesterday", "24.11.2026", "2026-13-01", "", "2026-02-30"])
def test_what_is_no_date_is_named(typed: str) -> None:
    with pytest.raises(click.BadParameter, match=f"'{typed}' is no date. Write it as 2026-11-01"):
        DATE.convert(typed, None, None)
