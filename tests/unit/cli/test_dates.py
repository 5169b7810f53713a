"""Dates as people type them."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator

import click
import pytest

from worker.cli.common import DAY, MOMENT, day_start, iso


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
        ("2026-11-24T06:00:30.5", "2026-11-24T00:15:30.500Z"),
        ("2026-11-24T06:00Z", "2026-11-24T06:00:00.000Z"),
        ("2026-11-24T06:00+02:00", "2026-11-24T04:00:00.000Z"),
    ],
)
def test_a_moment_is_local_unless_it_names_its_zone(typed: str, moment: str) -> None:
    assert iso(MOMENT.convert(typed, None, None)) == moment


@pytest.mark.parametrize("typed", ["yesterday", "24.11.2026", "2026-13-01", "", "2026-02-30"])
def test_what_is_no_date_is_named_with_a_way_out(typed: str) -> None:
    for kind in (MOMENT, DAY):
        with pytest.raises(click.BadParameter, match=f"'{typed}' is no .*2026-11-24"):
            kind.convert(typed, None, None)


@pytest.mark.usefixtures("in_nepal")
def test_a_day_is_utcs_wherever_one_is() -> None:
    day = DAY.convert("1970-01-02", None, None)
    assert (day, day_start(day)) == (datetime.date(1970, 1, 2), 86400.0)
    assert iso(None) is None
