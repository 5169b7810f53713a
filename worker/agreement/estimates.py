"""A figure with its interval, undefined where it is."""

from __future__ import annotations

from dataclasses import dataclass

from worker.agreement.tables import score_interval


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its 95 % interval; `value` is None where the figure is undefined, `interval` where nothing says
    how far chance may have moved it."""

    value: float | None = None
    interval: tuple[float, float] | None = None

    def as_json(self) -> dict[str, float | None]:
        """The figure and its ends by name."""
        low, high = self.interval or (None, None)
        return {"value": self.value, "low": low, "high": high}


UNDEFINED = Estimate()


def share_of(successes: int, n: int, *, sampled: float = 0.0) -> Estimate:
    """A share with its Wilson interval; undefined if n is 0. `sampled` as in `tables.score_interval`."""
    if not n:
        return UNDEFINED
    return Estimate(successes / n, score_interval(successes / n, n, sampled=sampled))
