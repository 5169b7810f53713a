"""What each rater says of the reviews of a job, as columns of small numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

REASONS = ("policy", "fallback", "cascade", "audit")
"""Why the oracle was asked; a review's reason is the place in here."""

NONE = -1
"""The code of "no label" and of "not asked"."""

Codes = NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Raters:
    """The labels of a job's N reviews, in the order of `row_no` (N,), ascending.

    `gold`, `adapter`, `oracle` and `final` (N,) are places in `labels`, or `NONE`. `labels` are the adapter's, in its
    order, then those that anybody else gave. Gold is a person's correction where there is one, else the file's.
    `adapter_score` and `final_score` (N,) are the probability of the label given, NaN where it isn't known.
    `characters` (N,) is the length of the text. `reason` (N,) is a place in `REASONS`: why the oracle was asked; with
    a reason and without an oracle's label it gave no answer.
    """

    labels: tuple[str, ...]
    row_no: NDArray[np.int64]
    gold: Codes
    adapter: Codes
    oracle: Codes
    final: Codes
    adapter_score: NDArray[np.float64]
    final_score: NDArray[np.float64]
    characters: NDArray[np.int64]
    reason: Codes

    def __len__(self) -> int:
        return len(self.row_no)

    def asked_for(self, reason: str) -> NDArray[np.bool_]:
        """The reviews (N,) that the oracle was asked about for this reason."""
        found: NDArray[np.bool_] = self.reason == REASONS.index(reason)
        return found


def decide(
    labels: tuple[str, ...],
    *,
    row_no: NDArray[np.int64],
    gold: Codes,
    adapter: Codes,
    oracle: Codes,
    adapter_score: NDArray[np.float64],
    oracle_score: NDArray[np.float64],
    characters: NDArray[np.int64],
    reason: Codes,
) -> Raters:
    """The raters with their final labels, by the rule of the view `results`.

    The oracle's label counts where it was asked to decide and did; an audit never decides. Else the adapter's, which
    under the policy `oracle` only audits.
    """
    decided = (oracle != NONE) & (reason != REASONS.index("audit"))
    adapters = reason != REASONS.index("policy")
    alone: Any = np.where(adapters, adapter, NONE)
    final = np.where(decided, oracle, alone).astype(np.int16)
    final_score = np.where(decided, oracle_score, np.where(adapters, adapter_score, np.nan))
    return Raters(
        labels=labels,
        row_no=row_no,
        gold=gold,
        adapter=adapter,
        oracle=oracle,
        final=final,
        adapter_score=adapter_score,
        final_score=final_score,
        characters=characters,
        reason=reason,
    )
