"""Dates as people type them."""

from __future__ import annotations

import datetime
from typing import Any

import click


class _Moment(click.ParamType[float]):
    """A date or date and time (ISO 8601) as seconds since 1970; local time where it names no zone."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            return datetime.datetime.fromisoformat(value).timestamp()
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is no date. Write 2026-11-24, '2026-11-24 18:30' (local time) or 2026-11-24T18:30Z.",
                param,
                ctx,
            )


class _Day(click.ParamType[datetime.date]):
    """A day (ISO 8601)."""

    name = "day"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime.date:
        if isinstance(value, datetime.date):
            return value
        try:
            return datetime.date.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no day. Write it as 2026-11-24; days are UTC's.", param, ctx)


MOMENT = _Moment()
DAY = _Day()
DAY_S = 86400


def day_start(day: datetime.date) -> float:
    """When a UTC day begins, in seconds since 1970."""
    return datetime.datetime.combine(day, datetime.time(), datetime.UTC).timestamp()


def iso(seconds: float | None) -> str | None:
    """Seconds since 1970 as ISO 8601 in UTC, to the millisecond."""
    if seconds is None:
        return None
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
