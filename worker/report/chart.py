"""A drawing with its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from worker.report.drawing import Name


@dataclass(frozen=True, slots=True)
class Table:
    """Cells under a header; the first cell of a row names it, `numeric` columns are set to the right."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: bool = True


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing, what it shows in a sentence, and its numbers."""

    name: Name
    svg: str
    table: Table
