"""The table of `make faults`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import beta

from tests.faults.scenario import Struck


@dataclass(slots=True)
class Row:
    """What came of a scenario's runs. A run whose fault didn't strike says nothing and doesn't count as one."""

    name: str
    planned: int = 0
    runs: int = 0
    struck: int = 0
    failures: int = 0
    recovery_s: float | None = None

    def add(self, found: Struck | None, *, failed: bool) -> None:
        """One more run: `found` is None if its fault didn't strike or it failed."""
        self.runs += 1
        self.struck += found is not None or failed
        self.failures += failed
        if found is not None and found.recovery_s is not None:
            self.recovery_s = max(found.recovery_s, self.recovery_s or 0.0)

    @property
    def bound(self) -> float | None:
        """The upper end of the exact one-sided 95 % interval (Clopper, Pearson) for the share of runs that fail."""
        if not self.struck:
            return None
        if self.failures == self.struck:
            return 1.0
        return float(beta.ppf(0.95, self.failures + 1, self.struck - self.failures))


def page(about: str, rows: Sequence[Row]) -> str:
    """The table as Markdown."""
    lines = [
        f"# Faults, {about}",
        "",
        "| scenario | planned | runs | struck | failures | 95 % upper bound | longest recovery |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in sorted(rows, key=_order):
        bound = "" if row.bound is None else f"{100 * row.bound:.2f} %"
        recovery = "" if row.recovery_s is None else f"{row.recovery_s:.1f} s"
        lines.append(
            f"| {row.name} | {row.planned:,} | {row.runs:,} | {row.struck:,} | {row.failures} | {bound} "
            f"| {recovery} |"
        )
    return "\n".join([*lines, ""])


def _order(row: Row) -> tuple[bool, int, str]:
    number = row.name.partition(".")[0]
    return (number.isdigit(), int(number) if number.isdigit() else 0, row.name)
