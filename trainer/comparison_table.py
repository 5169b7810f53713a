"""A comparison for people: a table of at most 110 columns, and what must be known to read it."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.comparison import Comparison
from trainer.contenders.row import Row
from worker.money import dollars

TITLE_WIDTH = 20
_UNITS = ("B", "KB", "MB", "GB", "TB")


def table(comparison: Comparison) -> str:
    """The table: a line per contender, then the reasons of those that have one."""
    rows = comparison.rows
    header = ["contender", "trainable", "share", "memory", "training", "size", "accuracy % (95 %)"]
    lines = [[_cut(row.title), *_cells(row)] for row in rows]
    dollars = [comparison.dollars(row) for row in rows]
    if any(value is not None for both in dollars for value in both):
        header += ["to train", "per 1,000"]
        lines = [[*line, *map(_dollars, both)] for line, both in zip(lines, dollars, strict=True)]
    else:
        header.append("reviews/s")
        lines = [[*line, _speed(row)] for line, row in zip(lines, rows, strict=True)]
    widths = [max(len(line[at]) for line in [header, *lines]) for at in range(len(header))]
    text = [
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [header, ["-" * width for width in widths], *lines]
    ]
    text += [f"{row.title}: {_reason(row)}" for row in rows if row.reason]
    return "\n".join([*text, *_legend(rows)])


def _cells(row: Row) -> list[str]:
    if row.state != "measured":
        return ["-"] * 5 + [row.state]
    low, high = row.interval or (0.0, 0.0)
    return [
        "-" if row.trainable_parameters is None else f"{row.trainable_parameters:,}",
        "-" if row.trainable_share is None else _percent(row.trainable_share),
        "-" if row.memory is None else size(row.memory.bytes),
        "-" if row.train_seconds is None else duration(row.train_seconds),
        "-" if row.size is None else size(row.size),
        f"{100 * (row.accuracy or 0):.2f} ({100 * low:.2f}-{100 * high:.2f})",
    ]


def _speed(row: Row) -> str:
    return f"{row.n / row.test_seconds:,.0f}" if row.n and row.test_seconds else "-"


def _reason(row: Row) -> str:
    return row.reason if row.state == "measured" else f"{row.state}: {row.reason}"


def _legend(rows: Sequence[Row]) -> list[str]:
    measured = [row for row in rows if row.memory is not None and row.state == "measured"]
    if not measured:
        return []
    kinds = {row.memory.device is not None for row in measured if row.memory is not None}
    of = []
    if True in kinds:
        of.append("on the GPU what tensors took")
    if False in kinds:
        of.append("on the CPU what it added to the process's resident set")
    return [
        f"memory: measured peak of training, {'; '.join(of)}.",
        "training: from before the model is made until its best weights are in place. size: what must be stored.",
    ]


def size(count: int) -> str:
    """Bytes for people, in powers of 1,000: "1.4 MB"."""
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if unit == 0 or value >= 99.5 else f"{value:.1f} {_UNITS[unit]}"


def duration(seconds: float) -> str:
    """Seconds for people: "7.1 s", "94 s", "12 min", "2.4 h"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"


def _dollars(value: float | None) -> str:
    return "-" if value is None else dollars(value)


def _percent(share: float) -> str:
    percent = 100 * share
    return f"{percent:.2g} %" if percent < 10 else f"{percent:.0f} %"


def _cut(title: str) -> str:
    # In the middle: an oracle's name ends in what tells it from another, such as few-shot.
    half = (TITLE_WIDTH - 1) // 2
    return title if len(title) <= TITLE_WIDTH else f"{title[:half]}…{title[-(TITLE_WIDTH - 1 - half) :]}"
