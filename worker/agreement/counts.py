"""What a job's labels come to: how many of each, how sure, and where sure raters differ most."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from worker.agreement.columns import NONE, Raters

Between = Literal["adapter,oracle", "gold,both", "gold,final"]
"""Who differs: the adapter from the oracle; gold from both, who are at one; gold from the final label."""


def label_counts(raters: Raters) -> dict[str, int]:
    """How many reviews have each final label, the most frequent first."""
    counts = np.bincount(raters.final[raters.final != NONE], minlength=len(raters.labels)).tolist()
    found = [(name, count) for name, count in zip(raters.labels, counts, strict=True) if count]
    return dict(sorted(found, key=lambda one: (-one[1], one[0])))


def gold_count(raters: Raters) -> int:
    """How many reviews have a gold label, by the file or by a person's correction."""
    return int((raters.gold != NONE).sum())


def wrong_by_source(raters: Raters) -> dict[str, tuple[int, int]]:
    """How many final labels of each source differ from gold, and how many have gold."""
    known = (raters.final != NONE) & (raters.gold != NONE)
    wrong = raters.final != raters.gold
    sources = {
        "adapter": ~raters.decided & ~raters.asked_for("cascade"),
        "adapter_unconfirmed": ~raters.decided & raters.asked_for("cascade"),
        "oracle": raters.decided,
    }
    return {
        source: (int((known & rows & wrong).sum()), int((known & rows).sum()))
        for source, rows in sources.items()
        if (known & rows).any()
    }


def score_counts(raters: Raters, *, bins: int) -> dict[str, list[int]]:
    """How many scores of the adapter lie in each of `bins` equal parts of 0 to 1, by the label it gave; 1 belongs to
    the last part."""
    scored = (raters.adapter != NONE) & ~np.isnan(raters.adapter_score)
    part = np.minimum((raters.adapter_score[scored] * bins).astype(np.int64), bins - 1)
    code = raters.adapter[scored].astype(np.int64) * bins + part
    table = np.bincount(code, minlength=len(raters.labels) * bins).reshape(-1, bins)
    counts = {name: row.tolist() for name, row in zip(raters.labels, table, strict=True) if row.any()}
    return dict(sorted(counts.items()))


def sharpest(raters: Raters, between: Between, *, limit: int) -> NDArray[np.int64]:
    """The places of the reviews on which raters who are sure of it differ, the surest first, equals in row order.

    A score that isn't known counts as 0.5.
    """
    if between == "gold,final":
        differ = (raters.final != NONE) & (raters.gold != NONE) & (raters.final != raters.gold)
        scores = [raters.final_score]
    else:
        both = (raters.adapter != NONE) & (raters.oracle != NONE)
        at_one = raters.adapter == raters.oracle
        wrong = (raters.gold != NONE) & (raters.gold != raters.adapter)
        differ = both & (at_one & wrong if between == "gold,both" else ~at_one)
        scores = [raters.adapter_score, raters.oracle_score]
    places = np.flatnonzero(differ)
    sure: Any = sum(np.nan_to_num(score[places], nan=0.5) for score in scores)
    return places[np.argsort(-sure, kind="stable")[:limit]]
